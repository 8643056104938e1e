"""One file of the journal: laid out in full when it is made, written through memory, synced, read back.

The rule is one `write` call a record; this is a copy into a shared mapping instead. It is as durable (the
kernel has it when the call returns, whatever becomes of the process), costs a tenth, and a disk that fills up
is met when a file is laid out and never between two records.
"""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from llmgateway.domain.call import NO_TOKENS, Record, Tokens
from llmgateway.wire.frames import SETTLE, frames


class _Named(Struct, rename={"id": "_id"}):
    """A record, as far as it is read to know which one it is, and what was used."""

    id: str
    tokens: Tokens = NO_TOKENS
    cost: int = 0


_decode = msgspec.json.Decoder(Record).decode
_name_in = msgspec.json.Decoder(_Named).decode


class Segment:
    """A queue on disk: appended at `size`, shipped up to `shipped_to`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.room = 0
        self.shipped_to = 0
        self._resident_from = 0
        self._fd = -1
        self._memory: mmap.mmap | None = None

    @classmethod
    def adopt(cls, path: Path) -> "Segment":
        """A segment that another process left: read only, all of it still to be shipped."""
        segment = cls(path)
        segment._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        segment.size = os.fstat(segment._fd).st_size
        if segment.size:
            segment._memory = mmap.mmap(segment._fd, segment.size, prot=mmap.PROT_READ)
        return segment

    def lay_out(self, size: int) -> None:
        """Makes the file at its full size. Raises OSError where the disk has no room for it."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._fd, 0, size)
            else:
                os.write(self._fd, bytes(size))
            self._memory = mmap.mmap(self._fd, size)
        except OSError:
            self.delete()
            raise
        self.room = size

    def move_to(self, path: Path) -> None:
        self.path = self.path.rename(path)

    def append(self, data: bytes) -> None:
        """`data` must fit into `room`."""
        assert self._memory is not None
        end = self.size + len(data)
        self._memory[self.size : end] = data
        self.size = end
        self.room -= len(data)

    def sync(self) -> None:
        """What has reached the disk leaves this process's memory: hardly anybody looks at it again. Raises
        OSError where what was appended may not have reached it."""
        size = self.size
        if self._fd >= 0:
            if hasattr(os, "fdatasync"):
                os.fdatasync(self._fd)
            elif self._memory is not None:
                self._memory.flush()
        self._let_go(size)

    def _let_go(self, size: int) -> None:
        memory, start, end = self._memory, self._resident_from, size // mmap.PAGESIZE * mmap.PAGESIZE
        if memory is not None and start < end and hasattr(mmap, "MADV_DONTNEED"):
            # Shipped and closed in this moment, or locked in memory: it is an advice, and the disk has all.
            with suppress(ValueError, OSError):
                memory.madvise(mmap.MADV_DONTNEED, start, end - start)
            self._resident_from = end

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self.room = 0

    def settled(self, most: int) -> tuple[list[Record], int]:
        """The next settled records that are not shipped yet, and where to go on after them."""
        records: list[Record] = []
        end = self.shipped_to
        if self._memory is not None:
            for kind, payload, end in frames(self._memory, self.shipped_to, self.size):  # noqa: B007
                if kind == SETTLE:
                    records.append(_decode(payload))
                    if len(records) == most:
                        break
        return records, end

    def delete(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def read(path: Path) -> Iterator[tuple[int, Record]]:
    for kind, payload, _ in frames(path.read_bytes()):
        yield kind, _decode(payload)


class Remains(NamedTuple):
    """What segments hold: records that were reserved and never settled in any of them, in their last known
    state; how many are settled in each; and what all of them have used, (tokens, cost) by id."""

    orphans: list[Record]
    settled: list[int]
    spent: dict[str, tuple[int, int]]


def remains_of(paths: Sequence[Path]) -> Remains:
    """Of all at once: one may have settled what another had left open. However large they are, no more is in
    memory than a segment, the names of what is settled, and what is open."""
    opened: dict[str, bytes] = {}
    spent: dict[str, tuple[int, int]] = {}
    counts: list[int] = []
    for path in paths:
        count = 0
        for kind, payload, _ in frames(path.read_bytes()):
            named = _name_in(payload)
            if kind == SETTLE:
                count += 1
                spent[named.id] = _spent(named)
                opened.pop(named.id, None)
            elif named.id not in spent:
                opened[named.id] = payload
        counts.append(count)
    orphans = [_decode(payload) for payload in opened.values()]
    return Remains(orphans, counts, spent | {orphan.id: _spent(orphan) for orphan in orphans})


def _spent(record: _Named | Record) -> tuple[int, int]:
    return record.tokens.prompt + record.tokens.completion, record.cost
