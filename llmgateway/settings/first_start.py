"""The secrets of an embedded gateway, made at its first start and kept in the data directory."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from llmgateway.domain.fields import attempt
from llmgateway.domain.scalars import Filled, Wrong
from llmgateway.domain.secret import Secret
from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.declared import SETTINGS
from llmgateway.settings.tree import Settings
from llmgateway.settings.value_files import value_in

KEPT = tuple(setting.kept_as for setting in SETTINGS if setting.kept_as)
RANDOM_BYTES = 48


def with_secrets(settings: Settings) -> Settings:
    """The same settings, with the secrets that were not given taken from the data directory; what is not
    there is made. Raises `BadSettings`. In production nothing is made: there they must be given."""
    missing = {s.kept_as: s for s in SETTINGS if s.kept_as and not getattr(settings, s.field)}
    if settings.is_production or not missing:
        return settings
    complaints: list[str] = []
    found = {}
    for name, secret in generate_secrets(settings.data_dir, missing).items():
        setting, value = missing[name], Filled(secret.reveal())
        where = str(settings.data_dir / name)
        found[setting.field] = attempt(setting.read, value, setting.absent, where, complaints)
    if complaints:
        raise BadSettings(complaints)
    return structs.replace(settings, **found)


def generate_secrets(data_dir: Path, names: Iterable[str] = KEPT) -> dict[str, Secret]:
    """What the files `names` hold; each is made if it is not there, and the directory too. Processes that
    start at the same time get the same. Raises `BadSettings`."""
    complaints: list[str] = []
    found: dict[str, Secret] = {}
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadSettings([_cannot_make(data_dir, error)]) from None
    for name in names:
        try:
            found[name] = Secret(_kept(data_dir / name))
        except Wrong as wrong:
            complaints.append(f"LLMGATEWAY_DATA_DIR: {wrong}")
        except OSError as error:
            complaints.append(_cannot_make(data_dir / name, error))
    if complaints:
        raise BadSettings(complaints)
    return found


def _cannot_make(path: Path, error: OSError) -> str:
    return f"LLMGATEWAY_DATA_DIR: cannot make {path}: {error.strerror or error}"


def _kept(path: Path) -> str:
    if not os.path.lexists(path):
        _make(path)
    return str(value_in(path))


def _make(path: Path) -> None:
    """The name appears only when the content is on disk, and never replaces another's: who loses a race reads
    what the winner wrote."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(RANDOM_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o600)
        _publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _publish(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
