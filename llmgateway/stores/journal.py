"""The write-ahead journal: every record is opened, advanced and closed here first, in one synchronous step
each.

What was appended outlives the process (`kill -9`) at once, and the machine after the group commit, at most 20
ms later. A worker owns a directory under a lock; whoever gets the lock of a dead one takes its records over,
once. Each segment stands for itself: when one is full, what is still open is written again at the head of the
next.
"""

import asyncio
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from llmgateway.domain.call import Record
from llmgateway.domain.errors import LedgerUnavailable
from llmgateway.domain.spool import Estate
from llmgateway.stores.segment import Remains, Segment, remains_of
from llmgateway.stores.worker_lock import lock, unlock
from llmgateway.wire.frames import PROGRESS, RESERVE, SETTLE, frame

log = logging.getLogger(__name__)

SEGMENT_BYTES = 8 * 1024 * 1024
SYNC_SECONDS = 0.02
RECENT = 5_000  # settled records in memory; a store that is further behind is fed from the segments

_encode = msgspec.json.Encoder().encode


class Batch(NamedTuple):
    """Settled records in the order in which they were settled, and how far the journal is shipped when they
    are stored."""

    records: Sequence[Record]
    segment: Segment
    end: int
    is_overflow: bool = False


class FileJournal:
    """Implements `domain.ports.Journal` and `domain.spool.Spool`. One event loop uses it; a thread of its own
    syncs, and lays out the next segment before it is needed."""

    def __init__(self, root: Path, *, worker: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._worker = worker
        self._directory = root / worker
        self._segment_bytes = segment_bytes
        self._head_room = segment_bytes // 4  # of the last segment on a full disk: for closing what is open
        self._open: dict[str, Record] = {}
        self._segments: deque[Segment] = deque()  # oldest first; the last one is written to
        self._adopted: deque[Segment] = deque()  # those of dead workers: shipped first, then deleted
        self._spare: Segment | None = None
        self._laying_out = threading.Lock()
        self._locks: list[tuple[Path, int]] = []
        self._orphans: set[str] = set()  # not settled here yet: nothing but the files of the dead holds them
        self._owing: set[Path] = set()  # of dead workers that hold something elsewhere, perhaps
        self._number = 0
        self._dirty = threading.Event()
        self._suspect = False
        self._stopping = threading.Event()
        self._syncer = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
        self._recent: deque[tuple[Record, Segment, int]] = deque()  # unshipped, and where each one ends
        self._keeps_up = True
        self._overflow: list[Record] = []
        self.unshipped = 0
        self.failures = 0

    # --- opening and closing ---

    def __enter__(self) -> Self:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        unborn = self._root / f".{self._worker}"  # a name that no other worker looks at until it is locked
        unborn.mkdir(mode=0o700)
        own = lock(unborn)
        assert own is not None
        self._locks.append((unborn.rename(self._directory), own))
        if not self._rotate():
            unlock(*self._locks.pop())
            raise LedgerUnavailable(f"There is no room for the journal in {self._root}.")
        self._syncer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._dirty.set()
        self._syncer.join()
        if self._spare is not None:
            self._spare.delete()
        keeps = bool(self._open or self.batch(1).records)
        for segment in (*self._adopted, *self._segments):
            if keeps:
                segment.sync()
                segment.close()
            else:
                segment.delete()
        for directory, fd in self._locks:
            if directory in self._owing:
                os.close(fd)  # the next start finds it
            else:
                unlock(directory, fd)

    # --- the calls' side: domain.ports.Journal ---

    def reserve(self, record: Record) -> None:
        data = frame(RESERVE, _encode(record))
        if self._is_full(len(data)) or not self._append(data):
            raise LedgerUnavailable(
                "The gateway cannot write its ledger now; nothing was charged.", retry_after=5
            )
        self._open[record.id] = record
        self._commit()

    def progress(self, records: Iterable[Record]) -> None:
        self._append(
            b"".join(frame(PROGRESS, _encode(record)) for record in records if record.id in self._open)
        )

    def settle(self, record: Record) -> None:
        self._open.pop(record.id, None)
        self._orphans.discard(record.id)
        self.unshipped += 1
        if not self._append(frame(SETTLE, _encode(record))):
            self._overflow.append(record)  # even the head-room is used up: the store is its only chance
        elif self._keeps_up:
            last = self._segments[-1]
            self._recent.append((record, last, last.size))
            if len(self._recent) > RECENT:
                self._fall_behind()
        self._commit()

    # --- the shipper's side: domain.spool.Spool ---

    def batch(self, most: int) -> Batch:
        """Out of memory while the store keeps up; out of the segments after a time in which it did not."""
        if self._overflow:
            return Batch(
                self._overflow[:most], self._segments[0], self._segments[0].shipped_to, is_overflow=True
            )
        if self._adopted and (batch := self._batch_adopted(most)):
            return batch
        if self._keeps_up:
            recent = list(islice(self._recent, most))
            _, segment, end = (
                recent[-1] if recent else (None, self._segments[0], self._segments[0].shipped_to)
            )
            return Batch([record for record, _, _ in recent], segment, end)
        return self._batch_on_disk(most)

    def _batch_on_disk(self, most: int) -> Batch:
        while True:
            segment = self._segments[0]
            records, end = segment.settled(most)
            if records:
                return Batch(records, segment, end)
            if len(self._segments) == 1:
                self._keeps_up = True
                return Batch([], segment, end)
            self._segments.popleft().delete()

    def _batch_adopted(self, most: int) -> Batch | None:
        """The files stay until what they left open is settled here: this worker may die before it is."""
        for segment in list(self._adopted):
            records, end = segment.settled(most)
            if records:
                return Batch(records, segment, end)
            segment.shipped_to = end  # what is left is not looked through again
            if not self._orphans:
                self._adopted.remove(segment)
                segment.delete()
                self._release_adopted()
        return None

    def shipped(self, batch: Batch) -> None:
        self.unshipped = max(0, self.unshipped - len(batch.records))
        if batch.is_overflow:
            del self._overflow[: len(batch.records)]
            return
        batch.segment.shipped_to = batch.end
        if batch.segment in self._adopted:
            return
        while self._segments[0] is not batch.segment:
            self._segments.popleft().delete()
        for _ in range(min(len(batch.records), len(self._recent))):
            self._recent.popleft()

    def _fall_behind(self) -> None:
        self._keeps_up = False
        self._recent.clear()

    def bury(self, records: Iterable[Record]) -> None:
        with (self._root / "dead-letters.jsonl").open("ab") as file:
            for record in records:
                file.write(_encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def oldest(self) -> datetime | None:
        records = self.batch(1).records
        return records[0].ended_at if records else None

    @property
    def open_records(self) -> int:
        return len(self._open)

    @property
    def bytes_held(self) -> int:
        return sum(segment.size - segment.shipped_to for segment in (*self._adopted, *self._segments))

    # --- recovery ---

    async def take_over(self) -> Estate:
        """Adopts the journals of dead workers: what they settled is shipped from here, what they left open is
        the caller's to settle; their files are deleted when the one is in the store and the other settled
        here, and their directories when what they held elsewhere is given back, too. They are read in a
        thread: whoever died while the store was away leaves hundreds of megabytes."""
        dead = self._lock_dead()
        paths = [path for directory, _ in dead for path in sorted(directory.glob("*.journal"))]
        try:
            remains = await asyncio.to_thread(remains_of, paths) if paths else Remains([], [], {})
        except BaseException:
            for directory, fd in dead:  # to be tried again
                self._locks.remove((directory, fd))
                unlock(directory, fd)
            raise
        self.unshipped += sum(remains.settled)
        self._adopted.extend(Segment.adopt(path) for path in paths)
        self._open.update((record.id, record) for record in remains.orphans)
        self._orphans.update(record.id for record in remains.orphans)
        self._owing |= {directory for directory, _ in dead}
        return Estate([directory.name for directory, _ in dead], remains.orphans, remains.spent)

    def given_back(self, worker: str) -> None:
        self._owing.discard(self._root / worker)
        self._release_adopted()

    def _lock_dead(self) -> list[tuple[Path, int]]:
        dead: list[tuple[Path, int]] = []
        for directory in sorted(self._root.iterdir()):
            if directory == self._directory or directory.name.startswith(".") or not directory.is_dir():
                continue
            fd = lock(directory)
            if fd is not None:
                dead.append((directory, fd))
                fields = {"worker": directory.name}
                log.info("took over the journal of a dead worker", extra={"fields": fields})
        self._locks += dead
        return dead

    def _release_adopted(self) -> None:
        held = {segment.path.parent for segment in self._adopted} | self._owing | {self._directory}
        for directory, fd in list(self._locks):
            if directory not in held:
                self._locks.remove((directory, fd))
                unlock(directory, fd)

    # --- inside ---

    def _is_full(self, size: int) -> bool:
        """Whether no more is left than is kept for closing what is open, where that is sure to take a frame
        twice as long. The syncer may be waiting for a slow disk: it is not asked for the next segment."""
        return self._spare is None and self._lacks_room(size)

    def _lacks_room(self, size: int) -> bool:
        kept = max(self._head_room, (len(self._open) + 1) * 2 * size)
        if self._segments[-1].room < kept:
            self._lay_out_spare()
        return self._spare is None and self._segments[-1].room < kept

    def _append(self, data: bytes) -> bool:
        segment = self._segments[-1]
        if self._suspect or len(data) > segment.room:
            self._rotate()
            segment = self._segments[-1]
            if len(data) > segment.room:
                self._failed("append", OSError(errno.ENOSPC, "no room for another segment"))
                return False
        segment.append(data)
        return True

    def _commit(self) -> None:
        """Has what was appended synced with the next group. Progress waits for others, at most a second: it
        is an estimate."""
        if not self._dirty.is_set():
            self._dirty.set()

    def _rotate(self) -> bool:
        """Goes on in the spare segment: first all that is open, and after a failed sync all that may be
        lost."""
        self._lay_out_spare()
        fresh, self._spare = self._spare, None
        if fresh is None:
            return False
        fresh.move_to(fresh.path.with_suffix(".journal"))
        again = [frame(PROGRESS, _encode(record)) for record in self._open.values()]
        for suspect in list(self._segments)[-2:] if self._suspect else ():
            again += [frame(SETTLE, _encode(record)) for record in suspect.settled(suspect.size)[0]]
        for data in again:
            if len(data) <= fresh.room:
                fresh.append(data)
        self._suspect = False
        self._segments.append(fresh)
        return True

    def _lay_out_spare(self) -> None:
        with self._laying_out:
            if self._spare is not None:
                return
            self._number += 1
            spare = Segment(self._directory / f"{self._number:08}.spare")
            try:
                spare.lay_out(self._segment_bytes)
            except OSError as error:
                self._failed("lay out", error)
            else:
                self._spare = spare

    def _sync_loop(self) -> None:
        synced: Segment | None = None
        while not self._stopping.is_set():
            self._dirty.wait(timeout=1)
            self._dirty.clear()
            current = self._segments[-1]
            for segment in {current, synced or current}:  # after a rotation, the one before as well
                self._sync(segment)
            synced = current
            self._lay_out_spare()
            self._stopping.wait(SYNC_SECONDS)

    def _sync(self, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError as error:
            if error.errno != errno.EBADF:  # else it was shipped and deleted in this moment
                self._suspect = True  # what the kernel could not write is gone from its cache: write it anew
                self._failed("sync", error)

    def _failed(self, what: str, error: OSError) -> None:
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # the 1st, 2nd, 4th, 8th ... time: no flood
            log.error(
                "journal: %s failed: %s", what, error.strerror, extra={"fields": {"failures": self.failures}}
            )
