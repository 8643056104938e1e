"""What all journals of this machine hold, read beside the workers that write them."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from llmgateway.domain.call import Record
from llmgateway.stores.segment import read
from llmgateway.stores.worker_lock import closed
from llmgateway.wire.frames import SETTLE

DEAD_LETTERS = "dead-letters.jsonl"


class Worker(Struct, frozen=True):
    """What a worker's journal holds: what it left open, and what it settled, by id."""

    name: str
    is_alive: bool
    open: dict[str, Record]
    settled: dict[str, Record]


def survey(root: Path) -> list[Worker]:
    """All journals, as they are now. A lock is tried and given back at once: nothing is taken over. Dead
    workers without records are left out: what they may hold elsewhere is no matter of the ledger."""
    if not root.is_dir():
        return []
    directories = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    workers = [_worker(directory) for directory in directories]
    return [worker for worker in workers if worker.is_alive or worker.open or worker.settled]


def left_behind(root: Path) -> bool:
    """Whether somebody who ended here has left records to the next start: a clean end deletes its files."""
    return any(not _is_alive(path.parent) for path in root.glob("*/*.journal"))


def dead_letters(root: Path) -> Iterator[Record]:
    path = root / DEAD_LETTERS
    if path.exists():
        for line in path.read_bytes().splitlines():
            yield msgspec.json.decode(line, type=Record)


def _worker(directory: Path) -> Worker:
    is_alive = _is_alive(directory)
    opened: dict[str, Record] = {}
    settled: dict[str, Record] = {}
    for path in sorted(directory.glob("*.journal")):
        try:
            for kind, record in read(path):
                if kind == SETTLE:
                    opened.pop(record.id, None)
                    settled[record.id] = record
                elif record.id not in settled:
                    opened[record.id] = record
        except FileNotFoundError:  # it was shipped and deleted in this moment
            continue
    return Worker(directory.name, is_alive, opened, settled)


def _is_alive(directory: Path) -> bool:
    with closed(directory) as is_free:
        return not is_free
