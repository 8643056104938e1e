"""Programs that the lab starts: each in a group of its own, ended by the id of that group."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import pytest

from tests.lab.waiting import wait_until

ROOT = Path(__file__).parents[2]
LOG_TAIL = 4000  # characters of a program's output that a failure shows
PATIENCE = 20.0  # seconds for a program to start or to stop


def absent(part: str, install: str) -> NoReturn:
    """Skips the test, for a developer who lacks a part; in CI nothing may be lacking."""
    message = f"{part} is not installed; get it with: {install}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def clean_environment(**more: str) -> dict[str, str]:
    """What a program needs to run at all, and nothing that would change how it behaves."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


class Program:
    """A program that can be started again, stopped, killed and frozen."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.log = log
        self.cwd = cwd
        self.environment = clean_environment() if environment is None else environment
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        assert self._running is None, f"{self.argv[0]} runs already"
        with self.log.open("ab") as out:
            self._running = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.cwd,
                env=dict(self.environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._running is not None, f"{self.argv[0]} does not run"
        return self._running.pid

    @property
    def is_running(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_until_ready(self, is_ready: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Fails at once, with the program's last words, when it ends before it is ready."""
        try:
            wait_until(lambda: not self.is_running or is_ready(), "the program is ready", seconds)
        except AssertionError:
            pytest.fail(f"{self.argv[:4]} was not ready in {seconds:g} s:\n{self.output()[-LOG_TAIL:]}")
        if not self.is_running:
            pytest.fail(f"{self.argv[:4]} ended by itself:\n{self.output()[-LOG_TAIL:]}")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP for the whole group: sockets still accept, nothing answers."""
        os.killpg(self.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(self.pid) == "T", f"process {self.pid} is frozen")

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit code, negative for a signal; what is left of its group is killed."""
        running = self._running
        assert running is not None
        code = running.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        self._running = None
        return code

    def stop(self, seconds: float = PATIENCE) -> int | None:
        """SIGTERM, as a supervisor would; None when it does not run."""
        if self._running is None:
            return None
        if self.is_running:
            self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL for all of the group: no program gets to say good-bye."""
        if self._running is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)
        self.wait()


def python(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, *arguments]


def state_of(pid: int) -> str:
    """The kernel's letter for a process: R, S, T (stopped), Z (ended, not yet waited for) ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def family_of(pid: int) -> list[int]:
    """A process and its children, the oldest first."""
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                children.append(int(entry.parent.name))
    return [pid, *sorted(children)]
