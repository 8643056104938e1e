"""One file of the journal: laid out in full when it is made, written through memory, synced, read back.

The rule is one `write` call a record; this is a copy into a shared mapping instead. It is as durable (the
kernel has it when the call returns, whatever becomes of the process), costs a tenth, and a disk that fills up
is met when a file is laid out and never between two records.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llmgateway.domain.call import Record
from llmgateway.wire.frames import PROGRESS, RESERVE, SETTLE, frames

_decode = msgspec.json.Decoder(Record).decode


class Segment:
    """A queue on disk: appended at `size`, shipped up to `shipped_to`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.room = 0
        self.shipped_to = 0
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
        """Raises OSError where what was appended may not have reached the disk."""
        if self._fd >= 0:
            if hasattr(os, "fdatasync"):
                os.fdatasync(self._fd)
            elif self._memory is not None:
                self._memory.flush()

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


def left_open(paths: list[Path]) -> list[Record]:
    """Records that were reserved and never settled in any of these, in their last known state."""
    opened: dict[str, Record] = {}
    settled: set[str] = set()
    for path in paths:
        for kind, record in read(path):
            if kind in (RESERVE, PROGRESS):
                opened[record.id] = record
            else:
                settled.add(record.id)
    return [record for record in opened.values() if record.id not in settled]
