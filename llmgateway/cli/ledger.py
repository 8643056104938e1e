"""`llmgateway ledger`: do journals and store agree, and what to do where they do not."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.app.periodic import left_in
from llmgateway.app.services import JOURNAL
from llmgateway.cli.opened import opened
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import counted, say, say_fields, say_json, table
from llmgateway.domain.call import Record
from llmgateway.domain.ports import Ledger, RecordQuery, SystemClock, UsageQuery
from llmgateway.domain.upkeep import Upkeep
from llmgateway.jobs.reconcile import Reconciliation
from llmgateway.jobs.ship import Recovery, Shipper
from llmgateway.stores.journal import FileJournal
from llmgateway.stores.survey import DEAD_LETTERS, Worker, dead_letters, survey

PAGE = 1000
LOOKS, LOOK_PAUSE = 20, 0.25  # for a live worker's records to reach the store; then they count as waiting
REPLAY_SECONDS = 60.0
COLUMNS = ("record", "worker", "is")


class Finding(Struct, frozen=True):
    """One record that is not where it should be."""

    record: str
    worker: str
    what: str

    def row(self) -> dict[str, str]:
        return {"record": self.record, "worker": self.worker, "is": self.what}


async def status(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        root = here.settings.data_dir / JOURNAL
        workers = survey(root)
        waiting = await unstored(here.store, workers)
        requests = sum(row.requests for row in await here.store.usage(UsageQuery()))
    say_fields(
        {
            "stored": requests,
            "waiting": len(waiting),
            "open": sum(len(worker.open) for worker in workers if worker.is_alive),
            "orphans": sum(len(worker.open) for worker in workers if not worker.is_alive),
            "dead_letters": len(list(dead_letters(root))),
            "live_workers": sum(worker.is_alive for worker in workers),
            "dead_workers": sum(not worker.is_alive for worker in workers),
        },
        as_json=arguments.as_json,
    )
    return 0


async def verify(arguments: Arguments) -> int:
    """Every settled record of every journal is in the store as it is, or on its way; nothing is left open
    by the dead."""
    async with opened(arguments) as here:
        root = here.settings.data_dir / JOURNAL
        workers = survey(root)
        waiting = await unstored(here.store, workers)
        for _ in range(LOOKS):
            if not any(worker.is_alive for worker, _ in waiting):
                break
            await asyncio.sleep(LOOK_PAUSE)
            workers = survey(root)
            waiting = await unstored(here.store, workers)
        findings = [*orphans(workers), *await altered(here.store, workers)]
        findings += [Finding(record.id, "-", "in the dead-letter file") for record in dead_letters(root)]
        requests = sum(row.requests for row in await here.store.usage(UsageQuery()))
    settled = len({id for worker in workers for id in worker.settled})
    counts = {"in_journals": settled, "stored": settled - len(waiting), "waiting": len(waiting)}
    if arguments.as_json:
        say_json({"in_store": requests, **counts, "differences": [finding.row() for finding in findings]})
    else:
        say(f"The store holds {counted(requests, 'request')}.")
        say(_in_journals(settled, len(waiting)))
        rows = [finding.row() for finding in findings]
        say(table(rows, COLUMNS) if rows else "Journals and store agree.")
    return 1 if findings else 0


def _in_journals(settled: int, waiting: int) -> str:
    """What the store has of a worker that ended is cleared out of its journal at the next start."""
    if not settled:
        return "The journals hold nothing beside that: what the store has is cleared out of them."
    on_the_way = f"{waiting:,} not in it yet" if waiting else "all in it, too"
    return f"The journals hold the last {counted(settled, 'request')}: {on_the_way}."


async def replay(arguments: Arguments) -> int:
    """What a start of the gateway would do with the journals of dead workers, and another try for dead
    letters."""
    async with opened(arguments) as here:
        root = here.settings.data_dir / JOURNAL
        with FileJournal(root, worker=f"replay-{os.getpid()}-{token_hex(4)}") as journal:
            recovered = await Recovery(journal, journal, SystemClock(), lines=here.ledger.lines).look()
            letters, refused = await resend(here.store, journal, take_letters(root))
            to_ship = journal.unshipped
            is_done = await Shipper(journal, here.store.append).drain(REPLAY_SECONDS)
    done = {
        "recovered": recovered,
        "shipped": to_ship if is_done else 0,
        "dead_letters_stored": letters - refused,
        "dead_letters_left": refused,
    }
    say_fields(done, as_json=arguments.as_json)
    return 0 if is_done and not refused else 1


async def rebuild(arguments: Arguments) -> int:
    """Sums by hour and by day, anew from the records that are still there; pages stay right meanwhile."""
    async with opened(arguments) as here:
        hours = await here.ledger.rebuild()
        requests = sum(row.requests for row in await here.ledger.usage(UsageQuery()))
    say_fields({"hours": hours, "requests": requests}, as_json=arguments.as_json)
    return 0


async def reconcile(arguments: Arguments) -> int:
    """What the daily job does, now; 1 where something was found, so a second run that finds nothing says that
    all is well."""
    window = timedelta(days=arguments.days) if arguments.days else None
    async with opened(arguments) as here:
        root = here.settings.data_dir / JOURNAL
        run = Reconciliation(
            here.ledger, SystemClock(), survey=lambda: left_in(root), recover=lambda: adopt(here.ledger, root)
        )
        found = await run.run(window)
    say_fields(msgspec.structs.asdict(found), as_json=arguments.as_json)
    return 1 if found.discrepancy or found.orphans or found.dead_letters else 0


async def adopt(ledger: Upkeep, root: Path) -> int:
    """Settles and ships what dead workers left; returns how many records they had left open."""
    with FileJournal(root, worker=f"reconcile-{os.getpid()}-{token_hex(4)}") as journal:
        recovered = await Recovery(journal, journal, SystemClock(), lines=ledger.lines).look()
        await Shipper(journal, ledger.append).drain(REPLAY_SECONDS)
    return recovered


async def resend(ledger: Ledger, journal: FileJournal, letters: Sequence[Record]) -> tuple[int, int]:
    """Another try for dead letters: how many there were, and how many are refused again."""
    left = list(letters)
    try:
        refused = set(await ledger.append(letters)) if letters else set()
        left = [record for record in letters if record.id in refused]
    finally:
        if left:
            journal.bury(left)
    return len(letters), len(left)


# --- what is there ---


def take_letters(root: Path) -> list[Record]:
    """The dead letters; their file is put aside, since a running gateway may write to it."""
    found = list(dead_letters(root))
    if found:
        (root / DEAD_LETTERS).rename(root / f"{DEAD_LETTERS}.{token_hex(4)}.replayed")
    return found


# --- what should be ---


async def unstored(ledger: Ledger, workers: Sequence[Worker]) -> list[tuple[Worker, str]]:
    """Settled records that the store does not have yet."""
    found: list[tuple[Worker, str]] = []
    for worker in workers:
        ids = list(worker.settled)
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            known = await ledger.known(page)
            found += [(worker, id) for id in page if id not in known]
    return found


def orphans(workers: Sequence[Worker]) -> Iterator[Finding]:
    """What one worker left open another may have settled since."""
    settled = {id for worker in workers for id in worker.settled}
    for worker in workers:
        if not worker.is_alive:
            yield from (
                Finding(id, worker.name, "left open by a dead worker; a start or `ledger replay` settles it")
                for id in worker.open
                if id not in settled
            )


async def altered(ledger: Ledger, workers: Sequence[Worker]) -> list[Finding]:
    """Records whose tokens or cost are others in the store than in the journal."""
    journaled = {id: (worker, record) for worker in workers for id, record in worker.settled.items()}
    found: list[Finding] = []
    if not journaled:
        return found
    first, after = min(journaled), max(journaled) + "~"
    while True:
        page = await ledger.records(RecordQuery(limit=PAGE, after=after))
        for stored in page:
            worker, record = journaled.get(stored["id"], (None, None))
            if worker is not None and record is not None and _sums(stored) != _sums(_as_stored(record)):
                found.append(Finding(record.id, worker.name, "other in the store than in the journal"))
        if len(page) < PAGE or page[-1]["id"] < first:
            return found
        after = page[-1]["id"]


def _as_stored(record: Record) -> Any:
    return msgspec.to_builtins(record)


def _sums(record: Any) -> tuple[object, ...]:
    return record["user"], record["key_id"], record["model"], record["tokens"], record["cost"]
