"""The cases: what is asked of every contender, by the two programs in C beside this file."""

import contextlib
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.machine import (
    Bed,
    Trouble,
    clean_environment,
    cpu_seconds,
    fetch,
    forget_peak,
    memory_mib,
    pin_to,
    poll,
    tree,
)

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"
CHAT = "/v1/chat/completions"
STREAMS_IN_C = 1000
THOUSAND = "-c 1000 -n 1000 -s 60 -w 50 -r 1000 -t 15"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One case: its load, and whether a request or a chunk is what costs are counted by."""

    words: str
    load: str
    per: str


CASES = {
    "L": Case("1 connection, one request after another", "-c 1 -d 1.5 -t 10", "requests"),
    "A": Case("32 connections, plain answers, saturated", "-c 32 -d 3 -t 15", "requests"),
    "B": Case("32 streams of 200 chunks, as fast as they go", "-c 32 -s 200 -d 3 -t 15", "chunks"),
    "P": Case("100 streams of 100 chunks, 50 ms apart", "-c 100 -n 100 -s 100 -w 50 -r 1000 -t 15", "chunks"),
    "C": Case("1,000 streams of 60 chunks, 50 ms apart", THOUSAND, "chunks"),
    "H": Case("8 connections, requests of 100 KB as agents send them", "-c 8 -b 92 -d 3 -t 15", "requests"),
    "U": Case("as C, but the client asks for no usage", f"{THOUSAND} -u", "chunks"),
}
USUAL_CASES = "LABPCH"
WARM_UP = ("-c 16 -d 0.7 -t 10", "-c 8 -s 50 -d 0.5 -t 10")


@dataclass(frozen=True)
class Aim:
    """Where the load goes and how it makes itself known."""

    port: int
    key: str = "none"
    headers: tuple[str, ...] = ()

    def words(self) -> list[str]:
        extra = [word for header in self.headers for word in ("-H", header)]
        return ["-p", str(self.port), "-P", CHAT, "-k", self.key, *extra]


def compile_tools() -> None:
    """Builds the programs in C again when their source is newer."""
    BUILD.mkdir(exist_ok=True)
    for name in ("upstream", "load"):
        source, program = HERE / f"{name}.c", BUILD / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)


def start_upstream(bed: Bed) -> subprocess.Popen[bytes]:
    argv = (str(BUILD / "upstream"), str(bed.upstream_port))
    process = bed.start(argv, name="upstream", cores=bed.cores.around)
    poll(lambda: fetch(bed.upstream_port, "/health")[0] == 200, seconds=5, what="upstream", process=process)
    return process


def upstream_count(bed: Bed) -> int:
    """How many chat completions the mock upstream has been asked for."""
    return int(json.loads(fetch(bed.upstream_port, "/count")[1])["posts"])


def load_arguments(aim: Aim, words: str) -> list[str]:
    return [str(BUILD / "load"), *aim.words(), *words.split()]


def load(bed: Bed, aim: Aim, words: str) -> Figures:
    """One run of the load generator."""
    done = subprocess.run(
        load_arguments(aim, words),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=pin_to(bed.cores.around),
    )
    with contextlib.suppress(json.JSONDecodeError):
        figures: Figures = json.loads(done.stdout)
        return figures
    raise Trouble(f"load said: {done.stdout[-300:]}{done.stderr[-300:]}")


def probe(aim: Aim) -> None:
    """One request by another client than the load: the answer has to be the upstream's."""
    body = {"model": "mock", "messages": [{"role": "user", "content": "Why do tides rise?"}]}
    headers = {"authorization": f"Bearer {aim.key}", "content-type": "application/json"}
    headers |= dict(header.split(": ", 1) for header in aim.headers)
    status, answer = fetch(aim.port, CHAT, body=json.dumps(body).encode(), headers=headers)
    if status != 200 or b"Tides rise and fall" not in answer:
        raise Trouble(f"probe answered {status}: {answer[:300]!r}")


def warm_up(bed: Bed, aim: Aim) -> None:
    for words in WARM_UP:
        load(bed, aim, words)


def measure(bed: Bed, aim: Aim, case: Case, *, pid: int | None, aside: Sequence[int]) -> Figures:
    """Runs a case and adds what it cost the process tree of `pid`, and the stores aside."""
    pids = tree(pid) if pid else []
    forget_peak(pids)
    used, used_aside = cpu_seconds(pids), cpu_seconds(aside)
    figures = load(bed, aim, case.load)
    used, used_aside = cpu_seconds(pids) - used, cpu_seconds(aside) - used_aside
    count = figures[case.per]
    return figures | {
        "count": count,
        "per_second": count / figures["wall_s"],
        "cpu_s": used,
        "cpu_share": used / figures["wall_s"],
        "cpu_us": used / count * 1e6 if pids and count else None,
        "stores_us": used_aside / count * 1e6 if aside and count else None,
        "peak_mib": memory_mib(pids, "VmHWM"),
    }
