"""The lock on a worker's directory: one holder, free when its process is dead, gone with the directory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmgateway.stores.worker_lock import closed, lock, unlock

HOLD = (
    "import sys; from pathlib import Path; from llmgateway.stores.worker_lock import lock;"
    "print(lock(Path(sys.argv[1])) is not None, flush=True); sys.stdin.read()"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "worker"
    made.mkdir()
    return made


@pytest.fixture
def holder(directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def held(directory: Path) -> int:
    fd = lock(directory)
    assert fd is not None
    return fd


def test_one_holds_it(directory: Path) -> None:
    fd = held(directory)
    assert lock(directory) is None
    os.close(fd)
    os.close(held(directory))


def test_it_is_free_when_its_process_is_dead(directory: Path, holder: "subprocess.Popen[str]") -> None:
    assert lock(directory) is None
    holder.kill()
    holder.wait()
    os.close(held(directory))


def test_it_is_not_inherited_by_children(directory: Path) -> None:
    fd = held(directory)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        os.close(fd)
        os.close(held(directory))
        child.kill()


def test_without_a_directory_there_is_no_lock(tmp_path: Path) -> None:
    assert lock(tmp_path / "gone") is None


def test_a_directory_without_segments_goes_with_it(directory: Path) -> None:
    (directory / "00000002.spare").write_bytes(b"")
    unlock(directory, held(directory))
    assert not directory.exists()


def test_a_directory_with_segments_stays(directory: Path) -> None:
    (directory / "00000001.journal").write_bytes(b"")
    unlock(directory, held(directory))
    assert [path.name for path in sorted(directory.iterdir())] == ["00000001.journal", "lock"]
    os.close(held(directory))


def test_a_directory_that_is_gone_already_is_no_error(directory: Path) -> None:
    fd = held(directory)
    (directory / "lock").unlink()
    directory.rmdir()
    unlock(directory, fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_closed_to_all_while_somebody_looks(directory: Path) -> None:
    os.close(held(directory))
    with closed(directory) as is_free, closed(directory) as is_free_for_another:
        assert is_free
        assert is_free_for_another
        assert lock(directory) is None
    os.close(held(directory))


def test_not_closed_where_somebody_lives(directory: Path, holder: "subprocess.Popen[str]") -> None:
    with closed(directory) as is_free:
        assert not is_free
    holder.kill()
    holder.wait()
    with closed(directory) as is_free:
        assert is_free


def test_to_look_at_a_lock_makes_none(directory: Path) -> None:
    with closed(directory) as is_free:
        assert is_free
    assert list(directory.iterdir()) == []
