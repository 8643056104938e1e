"""One file of the journal: appended through memory, read back, torn at any byte."""

import ctypes
import mmap
import os
import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from llmgateway.domain.call import Record
from llmgateway.stores.segment import Segment, read, remains_of
from llmgateway.wire.frames import PROGRESS, RESERVE, SETTLE, frame
from tests.stores.samples import record

SIZE = 64 * 1024
ENCODE = msgspec.json.Encoder().encode
CHANCE = random.Random(11)
A, B, C = (record(CHANCE) for _ in range(3))


def framed(kind: int, made: Record) -> bytes:
    return frame(kind, ENCODE(made))


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    made = Segment(tmp_path / "00000001.spare")
    made.lay_out(SIZE)
    yield made
    made.close()


def test_what_was_appended_is_there_for_another_process_at_once(segment: Segment) -> None:
    segment.append(framed(RESERVE, A))
    segment.append(framed(SETTLE, A))
    assert list(read(segment.path)) == [(RESERVE, A), (SETTLE, A)]
    assert segment.size + segment.room == SIZE == segment.path.stat().st_size


def test_settled_records_come_in_their_order_and_from_where_they_were_shipped(segment: Segment) -> None:
    ends = []
    for made in (A, B, C):
        segment.append(framed(RESERVE, made))
        segment.append(framed(SETTLE, made))
        ends.append(segment.size)
    segment.append(framed(PROGRESS, C))
    assert segment.settled(2) == ([A, B], ends[1])
    segment.shipped_to = ends[1]
    assert segment.settled(2) == ([C], segment.size)
    segment.shipped_to = segment.size
    assert segment.settled(2) == ([], segment.size)


def test_its_place_is_reserved_when_it_is_made(segment: Segment) -> None:
    assert segment.path.stat().st_blocks * 512 >= SIZE


def test_a_disk_without_room_is_met_when_it_is_made(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            Segment(tmp_path / "1.spare").lay_out(SIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_closed_one_has_no_room_and_nothing_to_give(segment: Segment) -> None:
    segment.append(framed(SETTLE, A))
    segment.close()
    segment.close()
    segment.sync()
    assert segment.room == 0
    assert segment.settled(1) == ([], 0)


def test_what_is_on_disk_can_be_read_again_and_written_after(segment: Segment) -> None:
    made = [record(CHANCE) for _ in range(20)]
    segment.append(b"".join(framed(SETTLE, one) for one in made))
    segment.sync()
    segment.append(framed(SETTLE, A))
    segment.sync()
    assert segment.settled(len(made) + 1) == ([*made, A], segment.size)


ON_LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="which pages of a mapping are in memory is told by Linux's smaps alone"
)


@ON_LINUX
def test_what_is_on_disk_is_no_longer_held_in_memory(segment: Segment) -> None:
    segment.append(b"".join(framed(SETTLE, record(CHANCE)) for _ in range(20)))
    before = mapping_of(segment.path).resident
    segment.sync()
    assert before > mapping_of(segment.path).resident <= mmap.PAGESIZE


@ON_LINUX
def test_pages_that_cannot_be_let_go_make_no_failed_sync(segment: Segment) -> None:
    """Where memory is locked, the kernel refuses the advice; the disk has everything all the same."""
    segment.append(b"".join(framed(SETTLE, record(CHANCE)) for _ in range(20)))
    where = ctypes.c_void_p(mapping_of(segment.path).start), ctypes.c_size_t(mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mlock(*where) == 0, os.strerror(ctypes.get_errno())
    try:
        segment.sync()
    finally:
        libc.munlock(*where)


class Mapping(NamedTuple):
    """Where a mapped file begins, and how many bytes of it are in this process's memory."""

    start: int
    resident: int


def mapping_of(path: Path) -> Mapping:
    before, _, told = Path("/proc/self/smaps").read_text().partition(str(path))
    start = before.rpartition("\n")[2].partition("-")[0]
    return Mapping(int(start, 16), int(told.partition("Rss:")[2].split()[0]) * 1024)


def test_an_adopted_one_gives_what_a_dead_worker_settled(segment: Segment) -> None:
    segment.append(framed(RESERVE, A) + framed(RESERVE, B) + framed(SETTLE, A))
    adopted = Segment.adopt(segment.path)
    assert adopted.settled(10)[0] == [A]
    assert adopted.room == 0
    adopted.sync()
    adopted.delete()
    assert not segment.path.exists()


def test_an_empty_file_can_be_adopted(tmp_path: Path) -> None:
    (tmp_path / "1.journal").write_bytes(b"")
    adopted = Segment.adopt(tmp_path / "1.journal")
    assert adopted.settled(10) == ([], 0)
    adopted.close()


def test_r_fault_41_a_failed_sync_is_told(segment: Segment) -> None:
    """The descriptor is made one that cannot be synced."""
    reading, writing = os.pipe()
    os.dup2(writing, segment._fd)
    with pytest.raises(OSError, match="Invalid argument"):
        segment.sync()
    os.close(reading)
    os.close(writing)


def test_open_is_what_was_never_settled_in_its_last_state(tmp_path: Path) -> None:
    later = record(random.Random(1), id=B.id, user="later")
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(framed(RESERVE, A) + framed(RESERVE, B) + framed(RESERVE, C) + framed(SETTLE, A))
    two.write_bytes(framed(PROGRESS, later) + framed(SETTLE, C))
    assert remains_of([one, two]).orphans == [later]
    assert remains_of([two, one]).orphans == [B]  # in whatever order: what is settled is not open


def test_r_fault_42_a_tail_torn_at_any_byte_costs_only_itself(tmp_path: Path) -> None:
    whole = framed(RESERVE, A) + framed(RESERVE, B)
    last = framed(SETTLE, A)
    path = tmp_path / "1"
    for end in range(len(last)):
        path.write_bytes(whole + last[:end] + bytes(100))
        assert remains_of([path]).orphans == [A, B], end
        adopted = Segment.adopt(path)
        assert adopted.settled(10)[0] == []
        adopted.close()
    path.write_bytes(whole + last + bytes(100))
    assert remains_of([path]).orphans == [B]
