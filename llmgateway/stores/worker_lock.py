"""The lock on a worker's journal directory: held while the worker lives, free for one other when it is
dead."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def lock(directory: Path) -> int | None:
    """The held lock as a file descriptor; None while the directory's worker lives, or another has taken
    it."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_ino == (directory / "lock").stat().st_ino:
            return fd
    except OSError:
        pass  # held, or deleted with its directory since it was opened
    os.close(fd)
    return None


@contextlib.contextmanager
def closed(directory: Path) -> Iterator[bool]:
    """Whether nobody lives there; for the length of the block nobody can move in. Nothing is written: where
    there is no lock, none is made."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        yield _shared(fd)
    finally:
        os.close(fd)


def _shared(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(directory: Path, fd: int) -> None:
    """Gives the lock up, and the directory with it when no segment is left in it."""
    if not any(directory.glob("*.journal")):
        with contextlib.suppress(OSError):
            for leftover in directory.iterdir():
                leftover.unlink(missing_ok=True)
            directory.rmdir()
    os.close(fd)
