"""What the benchmark asks of the machine: processes on chosen cores, their CPU time and memory, ports."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR")  # no setting of the caller may slip into a contender


class Trouble(Exception):
    """A contender could not be measured; the text says why."""


@dataclass(frozen=True)
class Cores:
    """Where processes run: the contender on one core, all that surrounds it on another. None: anywhere."""

    contender: frozenset[int] | None
    around: frozenset[int] | None

    @classmethod
    def apart(cls) -> "Cores":
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            return cls(None, None)
        return cls(frozenset(usable[:1]), frozenset(usable[1:2]))


# --- /proc -------------------------------------------------------------------------------------------------


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := stat_of(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far."""
    return sum(int(stat[11]) + int(stat[12]) for stat in map(stat_of, pids) if stat) / TICKS


def settle(pids: Sequence[int], *, step: float = 0.3, patience: float = 60.0) -> None:
    """Waits until these processes take less than a tenth of a core: what a case has left behind is not booked
    on the next."""
    until, used = time.monotonic() + patience, float("-inf")
    while (now := cpu_seconds(pids)) - used > step / 10 and time.monotonic() < until:
        used = now
        time.sleep(step)


def memory_mib(pids: Sequence[int], line: str = "VmRSS") -> float:
    """The sum of a line of /proc/PID/status that is given in kB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for text in Path(f"/proc/{pid}/status").read_text().splitlines():
                if text.startswith(f"{line}:"):
                    total += int(text.split()[1])
    return total / 1024


def forget_peak(pids: Sequence[int]) -> None:
    """Lets VmHWM begin anew."""
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


# --- HTTP --------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def fetch(
    port: int, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body; POST where there is a body to send."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def poll(done: Callable[[], bool], *, seconds: float, what: str, process: subprocess.Popen[bytes]) -> None:
    """Returns when `done` says so; raises `Trouble` when it does not in time, or the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if done():
                return
        if process.poll() is not None:
            raise Trouble(f"{what}: ended with code {process.returncode}")
        time.sleep(0.05)
    raise Trouble(f"{what}: not within {seconds:.0f} s")


# --- processes ---------------------------------------------------------------------------------------------


def stop(process: subprocess.Popen[bytes], *, patience: float = 3) -> None:
    """Ends a process that we started, and what it started, by pid."""
    family = tree(process.pid)
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        if stat_of(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Bed:
    """Where one contender is measured: a folder of its own, two ports, and the processes around it."""

    folder: Path
    port: int
    upstream_port: int
    cores: Cores
    stack: contextlib.ExitStack = field(repr=False)

    def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        cores: frozenset[int] | None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A process that ends with the bed; what it says goes to NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                env=clean_environment(env),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=pin_to(cores),
            )
        self.stack.callback(stop, process)
        return process

    def log_tail(self) -> str:
        """The last words of every process, for the report of a failure."""
        logs = sorted(self.folder.glob("*.log"))
        tails = {log.name: log.read_text(errors="replace")[-1200:] for log in logs}
        return "\n".join(f"{name}: {tail}" for name, tail in tails.items() if tail)


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ} | dict(more or {})


def pin_to(cores: frozenset[int] | None) -> Callable[[], None] | None:
    """What a child does before it becomes the program."""
    return None if cores is None else lambda: os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def make_bed(cores: Cores) -> Iterator[Bed]:
    """A bed that takes everything away at its end, the last started first."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o755)  # workers of nginx may run as somebody else
        yield Bed(Path(folder), free_port(), free_port(), cores, stack)
