"""`llmgateway migrate`: what an embedded gateway remembers goes into MongoDB, and is proved to be there."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from llmgateway.app.services import JOURNAL
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import complain, counted, say, say_json, table
from llmgateway.cli.source import at_rest, directory_of, production_of, secrets_of
from llmgateway.control.migration import Migration, Proof
from llmgateway.control.moves import Finding, Tally
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ports import Change, State, SystemClock
from llmgateway.settings import Settings
from llmgateway.stores.mongo import MongoStore, open_mongo
from llmgateway.stores.redis import open_redis
from llmgateway.stores.sqlite import SealedStore
from llmgateway.stores.survey import DEAD_LETTERS, dead_letters

TELL_SECONDS = 1.0  # between two lines about how far it is
PATIENCE = 60.0  # seconds that MongoDB has for a page, or for all days of a large ledger
MANY = 10_000  # are told of when they begin
COLUMNS = ("part", "in_source", "was_there", "copied", "to_copy", "conflicts", "only_there")
FINDING = ("part", "id", "what")
ABOUT = """
Copies the data directory of an embedded gateway (--from, else LLMGATEWAY_DATA_DIR) into the MongoDB of
MONGO_URL: people, their accounts and keys, projects, models, limits, terms that were accepted,
announcements, the audit log and the ledger. Stop the gateway first. The source is only read. Nothing that is
in the target is changed: what is there and the same is passed over, so a run that broke off is gone on with
by the next one; where anything there is not the same, it is listed and nothing is written. In the end both
sides are compared. Sessions are not copied: people sign in again. Exit code 0: all is there; 1: something is
in the way or wrong; 2: wrong usage or settings.
"""


class Done(Struct, frozen=True, kw_only=True):
    """What came of it. `proof` is None where nothing was to be written."""

    tallies: Sequence[Tally]
    proof: Proof | None
    findings: Sequence[Finding]


class Progress:
    """Counts on the standard error, not too many."""

    def __init__(self) -> None:
        self.doing = "looking at"
        self._next = 0.0
        self._told = ""
        self._monotonic = SystemClock().monotonic

    def tell(self, part: str, done: int, of: int) -> None:
        now, what = self._monotonic(), f"{self.doing} {part}"
        if now >= self._next or (what != self._told and of >= MANY):
            self._next, self._told = now + TELL_SECONDS, what
            complain(f"{what}: {done:,} of {of:,}")


async def migrate(arguments: Arguments) -> int:
    directory = directory_of(arguments)
    settings = production_of(arguments, directory)
    secrets = secrets_of(settings, directory)
    async with at_rest(directory) as source, target_of(settings) as (target, state):
        try:
            done = await move(source, target, is_dry=arguments.is_dry)
        except StoreUnavailable as error:
            stays = "What was copied stays; run the same command again to go on."
            raise StoreUnavailable(f"{error.message} {stays}") from error
        if done.proof is not None:
            await wake(state)
    report = {
        "from": str(directory), "database": settings.mongo_database, "dry_run": arguments.is_dry,
        "parts": [row_of(tally) for tally in done.tallies],
        "findings": [structs.asdict(finding) for finding in done.findings],
        "days_compared": done.proof.days if done.proof else None,
        "audit": {"lines": done.proof.audit.lines, "head": done.proof.audit.head} if done.proof else None,
        "secrets": secrets,
    }  # fmt: skip
    if arguments.as_json:
        say_json(report)
    else:
        tell(done, report, settings, directory)
    return 1 if done.findings else 0


@asynccontextmanager
async def target_of(settings: Settings) -> AsyncIterator[tuple[MongoStore, State]]:
    assert settings.mongo_url is not None, "these are the settings of production"
    assert settings.redis_url is not None
    timeouts, url = settings.stores, settings.mongo_url.reveal()
    async with open_mongo(url, timeouts.mongo_timeout) as mongo:
        await mongo.ping()  # one that is away is told of soon
    async with (
        open_mongo(url, max(PATIENCE, timeouts.mongo_timeout)) as mongo,
        open_redis(settings.redis_url.reveal(), timeouts.redis_timeout) as redis,
    ):
        yield mongo, redis


async def move(source: SealedStore, target: MongoStore, *, is_dry: bool) -> Done:
    progress = Progress()
    migration = Migration(source, target, SystemClock(), progress.tell)
    tallies = await migration.look()
    findings = [finding for tally in tallies for finding in tally.findings]
    proof: Proof | None = None
    if not findings and not is_dry:
        progress.doing = "copying"
        await migration.copy(tallies)
        progress.doing = "comparing"
        proof = await migration.prove()
        findings = [*(finding for tally in tallies for finding in tally.findings), *proof.findings]
    if not source.is_as_found():
        findings.append(Finding("source", "-", "somebody has written to it meanwhile; run the command again"))
    return Done(tallies=tallies, proof=proof, findings=findings)


async def wake(state: State) -> None:
    """Gateways that run already read everything anew."""
    try:
        await state.announce(Change("*"))
    except StoreUnavailable as error:
        complain(f"{error.message} Gateways that run already need a minute to see all of it.")


# --- what is said ---


def row_of(tally: Tally) -> dict[str, Any]:
    return {
        "part": tally.part, "in_source": tally.source, "was_there": tally.there, "copied": tally.copied,
        "to_copy": tally.missing - tally.copied, "conflicts": tally.conflicts, "only_there": tally.others,
    }  # fmt: skip


def tell(done: Done, report: dict[str, Any], settings: Settings, directory: Path) -> None:
    say(f"from  {report['from']}")
    say(f"to    MongoDB, database {report['database']}")
    say()
    say(table(report["parts"], COLUMNS))
    say()
    if done.findings:
        say("This is wrong now:" if done.proof else "Nothing was written; this is in the way:")
        say(table(report["findings"], FINDING))
        return
    if done.proof is None:
        say("Nothing was written: this was a dry run. Nothing is in the way.")
    else:
        lines = counted(done.proof.audit.lines, "line")
        say("All is there. Every document and every record is the same on both sides, and so are the sums of "
            f"{counted(done.proof.days, 'day')},")  # fmt: skip
        say(f"by user, key, project and model. The audit log is whole: {lines}, head {done.proof.audit.head}")
    for line in advice(done, report["secrets"], settings, directory):
        say(line)


def advice(
    done: Done, secrets: Sequence[dict[str, Any]], settings: Settings, directory: Path
) -> Iterator[str]:
    """What production needs beside it."""
    yield ""
    yield "Production needs the secrets of this directory, from now on kept where its others are:"
    for secret in secrets:
        note = "" if secret["same"] else "  (another one is given now)"
        yield f"  {secret['setting']}={secret['file']}{note}"
    if not any(secret["setting"] == "LLMGATEWAY_KEY_PEPPER_FILE" for secret in secrets):
        yield "  LLMGATEWAY_KEY_PEPPER  as the gateway there was given it: with another one no key works"
    accounts = next(tally.source for tally in done.tallies if tally.part == "accounts")
    if accounts and not settings.local_sign_in:
        people = counted(accounts, "person signs", "people sign")
        yield f"{people} in with a password: production lets them with `sign_in: {{local: true}}` only."
    letters = sum(1 for _ in dead_letters(directory / JOURNAL))
    if letters:
        records = counted(letters, "record is", "records are")
        yield f"{records} in no ledger but in {directory / JOURNAL / DEAD_LETTERS}: they stay there."
    yield "Sessions were not copied: people sign in to the portal again. Keys work on as they are."
