"""An embedded data directory that is at rest: what is in it, read and left as it is."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llmgateway.app.memory import DATABASE
from llmgateway.app.services import JOURNAL
from llmgateway.cli.ledger import orphans, unstored
from llmgateway.cli.options import Arguments, overrides_of, settings_with
from llmgateway.cli.printing import counted
from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.ports import Ledger
from llmgateway.domain.scalars import Wrong
from llmgateway.domain.secret import Secret
from llmgateway.settings import SETTINGS, BadSettings, Setting, Settings, of_this_process
from llmgateway.settings.value_files import value_in
from llmgateway.stores.sqlite import SealedStore, open_sealed
from llmgateway.stores.survey import survey
from llmgateway.stores.worker_lock import closed

DATA_DIR = "LLMGATEWAY_DATA_DIR"
PEPPER = "key_pepper"
SHIP_IT = (
    "start the gateway on it once, without MONGO_URL and REDIS_URL, and stop it; "
    "`llmgateway ledger replay` without them does the same"
)


@asynccontextmanager
async def at_rest(directory: Path) -> AsyncIterator[SealedStore]:
    """Raises `Conflict` where a gateway runs on it, or records are in its journal that are not in its
    database."""
    with closed(directory) as is_free:
        if not is_free:
            raise Conflict(f"A gateway runs on {directory}: stop it, and try again.")
        async with open_sealed(directory / DATABASE) as store:
            await _demand_shipped(store, directory / JOURNAL)
            yield store


async def _demand_shipped(store: Ledger, journal: Path) -> None:
    workers = survey(journal)
    if any(worker.is_alive for worker in workers):
        raise Conflict(f"Somebody is at work on {journal}: stop the gateway or the command, and try again.")
    waiting = len(await unstored(store, workers)) + len(list(orphans(workers)))
    if waiting:
        records = counted(waiting, "record")
        raise Conflict(f"{journal} holds {records} that the ledger there does not have yet: {SHIP_IT}.")


def directory_of(arguments: Arguments) -> Path:
    """The one that is named, else that of the settings."""
    named = arguments.source or _given(arguments).get(DATA_DIR) or _declared()[DATA_DIR].default
    directory = Path(str(named)).expanduser().absolute()
    database = directory / DATABASE
    try:
        database.open("rb").close()
    except OSError as error:
        why = f"{database}: {error.strerror or error}"
        raise InvalidRequest(f"{why}; --from names the data directory of an embedded gateway.") from None
    return directory


def production_of(arguments: Arguments, directory: Path) -> Settings:
    """The settings of where it goes, with the secrets of the source in the place of those that are not given.
    Raises `BadSettings`."""
    given = _given(arguments)
    taken = {
        f"{setting.name}_FILE": str(path)
        for setting, path in kept_in(directory).items()
        if not given.keys() & {setting.name, f"{setting.name}_FILE"}
    }
    settings = settings_with(arguments, taken)
    if not settings.is_production:
        raise BadSettings(["MONGO_URL, REDIS_URL: are missing; they say where everything goes"])
    return settings


def secrets_of(settings: Settings, directory: Path) -> list[dict[str, Any]]:
    """Which files hold what production needs, and whether it is given the same; never what is in them. Raises
    `Conflict` where the keys would not work."""
    found = []
    for setting, path in kept_in(directory).items():
        is_same = _text(path) == _joined(getattr(settings, setting.field))
        if setting.kept_as == PEPPER and not is_same:
            raise Conflict(
                f"{setting.name} is another one than in {path}, so none of the keys would work: give "
                f"production that file as {setting.name}_FILE. Only if the gateway there was itself given a "
                "pepper by a setting, the file is not what it used: move it away."
            )
        found.append({"setting": f"{setting.name}_FILE", "file": str(path), "same": is_same})
    return found


def kept_in(directory: Path) -> Mapping[Setting, Path]:
    paths = {s: directory / s.kept_as for s in _declared().values() if s.kept_as is not None}
    return {setting: path for setting, path in paths.items() if path.is_file()}


def _declared() -> dict[str, Setting]:
    return {setting.name: setting for setting in SETTINGS}


def _given(arguments: Arguments) -> dict[str, str]:
    """By the environment and the command line; what is empty is not given."""
    both = {**of_this_process(), **overrides_of(arguments)}
    return {name: value for name, value in both.items() if value.strip()}


def _text(path: Path) -> str:
    try:
        return str(value_in(path))
    except Wrong as wrong:
        raise Conflict(f"{wrong}.") from None


def _joined(secrets: Secret | tuple[Secret, ...]) -> str:
    return ",".join(one.reveal() for one in (secrets if isinstance(secrets, tuple) else (secrets,)))
