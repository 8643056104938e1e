"""Notices that the YAML file has changed."""

from pathlib import Path

Stamp = tuple[int, int, int, int] | None


class ConfigWatch:
    """Ask `changed` at least once a second. It says yes when a change has stood still from one question to
    the next, so a file that is being written is not read half; a file that vanished has changed too.

    What counts is the file that the path leads to: Kubernetes swaps a symbolic link above it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._taken = self._seen = stamp(path)

    def changed(self) -> bool:
        now = stamp(self.path)
        has_settled = now == self._seen
        self._seen = now
        if now == self._taken or not has_settled:
            return False
        self._taken = now
        return True


def stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
