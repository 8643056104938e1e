"""Where a contender's time goes under load: by library with perf, by Python function with py-spy.

    python -m tests.bench.hotspots A                 llmgateway, plain answers
    python -m tests.bench.hotspots C llmgateway-fleet --seconds 10

Either tool is left out where it is not installed. Prints results/hotspots-NAME-CASE.txt and writes it; raw
stacks of py-spy stay beside it, for flame graphs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.bench.__main__ import CONTENDERS, RESULTS, start
from tests.bench.cases import Aim, compile_tools, load_arguments, probe, start_upstream, warm_up
from tests.bench.machine import Bed, Cores, Trouble, make_bed, memory_mib, tree

RAMP = 1.5  # seconds until the load is steady
SHOWN = 30
IDLE = re.compile(r"_worker \(concurrent/|(Condition\.)?wait \(threading|(Queue\.)?get \(queue")


def endless(case: str, seconds: float) -> str:
    """The load of a case, for as long as the tool looks on."""
    if case == "A":
        return f"-c 32 -d {seconds} -t {seconds + 5}"
    chunks = int(seconds * 20) + 20
    return f"-c 1000 -n 1000 -s {chunks} -w 50 -r 1000 -t {seconds + 5}"


def under_load(bed: Bed, aim: Aim, case: str, seconds: float, tool: Sequence[str]) -> None:
    """Runs a tool while the load runs."""
    words = endless(case, seconds + RAMP + 1.5)
    busy = bed.start(load_arguments(aim, words), name="load", cores=bed.cores.around)
    time.sleep(RAMP)
    subprocess.run(tool, capture_output=True, timeout=seconds + 60, check=False)
    busy.wait(seconds + 60)


def busiest(pid: int) -> int:
    """The process of the tree that holds the most memory: the worker under a process manager."""
    return max(tree(pid), key=lambda member: memory_mib([member]))


def program(name: str) -> str | None:
    """A tool beside this interpreter, or on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


# --- perf --------------------------------------------------------------------------------------------------


def by_library(bed: Bed, aim: Aim, case: str, seconds: float, pid: int) -> str:
    perf, data = program("perf"), bed.folder / "perf.data"
    if perf is None:
        return "perf is not installed: no shares by library\n"
    record = (perf, "record", "-e", "cpu-clock", "-F", "999", "-p", str(pid), "-o", str(data))
    under_load(bed, aim, case, seconds, (*record, "--", "sleep", str(seconds)))
    report = (perf, "report", "-i", str(data), "--sort", "dso", "--stdio")
    printed = subprocess.run(report, capture_output=True, text=True, timeout=120, check=False).stdout
    lines = [line for line in printed.splitlines() if line.strip() and not line.startswith("#")]
    return "\n".join(lines[:14] or ["perf saw nothing (is it allowed to?)"]) + "\n"


# --- py-spy ------------------------------------------------------------------------------------------------


def shares(stacks: Iterable[str]) -> str:
    """Of stacks as `frame;frame;frame count`: the share of each function, alone and with its callees."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        if IDLE.match(frames[-1]):
            continue
        own[frames[-1]] += int(count)
        for frame in set(frames):
            with_callees[frame] += int(count)
    samples = own.total() or 1
    lines = [f"{n / samples:6.1%} {with_callees[f] / samples:6.1%}  {f}" for f, n in own.most_common(SHOWN)]
    return "\n".join(["  self  total  function", *lines]) + "\n"


def by_function(bed: Bed, aim: Aim, case: str, seconds: float, pid: int) -> tuple[str, str]:
    """The table, and the raw stacks."""
    spy, raw = program("py-spy"), bed.folder / "stacks.txt"
    if spy is None:
        return "py-spy is not installed: no shares by function\n", ""
    record = (spy, "record", "-p", str(pid), "-d", f"{seconds:.0f}", "-r", "500", "-f", "raw", "-o", str(raw))
    under_load(bed, aim, case, seconds, record)
    stacks = raw.read_text() if raw.exists() else ""
    return shares(stacks.splitlines()) if stacks else "py-spy saw nothing (is it allowed to?)\n", stacks


# --- the command line --------------------------------------------------------------------------------------


def look(name: str, case: str, seconds: float) -> str:
    launcher = CONTENDERS[name].launch
    if launcher is None:
        raise Trouble(f"{name} has no process to look at")
    with make_bed(Cores.apart()) as bed:
        start_upstream(bed)
        launch = launcher(bed)
        process = start(bed, launch)
        aim = Aim(bed.port, launch.key, launch.headers)
        probe(aim)
        warm_up(bed, aim)
        pid = busiest(process.pid)
        libraries = by_library(bed, aim, case, seconds, pid)
        functions, stacks = by_function(bed, aim, case, seconds, pid)
    RESULTS.mkdir(exist_ok=True)
    if stacks:
        (RESULTS / f"hotspots-{name}-{case}.stacks").write_text(stacks)
    text = f"{name}, case {case}, {seconds:.0f} s\n\nby library\n{libraries}\nby Python function\n{functions}"
    (RESULTS / f"hotspots-{name}-{case}.txt").write_text(text)
    return text


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Where a contender's time goes under load.")
    parser.add_argument("case", choices=("A", "C"))
    parser.add_argument("name", nargs="?", default="llmgateway", choices=sorted(CONTENDERS))
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args(words)
    if missing := CONTENDERS[options.name].missing():
        print(f"{options.name}: {missing}", file=sys.stderr)
        return 2
    compile_tools()
    try:
        print(look(options.name, options.case, options.seconds))
    except Trouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
