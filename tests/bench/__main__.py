"""The benchmark: what a request and a streamed chunk cost, measured beside the peers in one interleaved run.

    python tests/bench/bench.py                      everything that is installed, 3 rounds, under 10 minutes
    python tests/bench/bench.py --quick              llmgateway and nginx, cases A and C, 1 round
    python tests/bench/bench.py -n 5 -c AC nginx llmgateway
    python tests/bench/bench.py --table results/run.json --targets

README.md beside this file says what is measured, and how.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.cases import (
    CASES,
    HERE,
    USUAL_CASES,
    Aim,
    compile_tools,
    measure,
    probe,
    start_upstream,
    upstream_count,
    warm_up,
)
from tests.bench.contender import Contender, Launch
from tests.bench.gateway import GATEWAYS
from tests.bench.interpreter import in_words, interpreter
from tests.bench.machine import Bed, Cores, Trouble, fetch, make_bed, memory_mib, poll, settle, tree
from tests.bench.peers import PEERS
from tests.bench.tables import Row, Run, figures, ratios, remarks, targets

RESULTS = HERE / "results"
CONTENDERS = {contender.name: contender for contender in (*PEERS, *GATEWAYS)}
QUICK = ("nginx", "llmgateway")
LEDGER_PATIENCE = 15  # seconds for the last records to arrive


# --- one contender, one round ------------------------------------------------------------------------------


def start(bed: Bed, launch: Launch) -> subprocess.Popen[bytes]:
    process = bed.start(launch.argv, name="contender", cores=bed.cores.contender, env=launch.env)
    headers = {"authorization": f"Bearer {launch.key}"}
    poll(
        lambda: fetch(bed.port, launch.ready, headers=headers)[0] < 500,
        seconds=launch.patience,
        what="start",
        process=process,
    )
    return process


def settled_ledger(bed: Bed, launch: Launch) -> dict[str, int]:
    """What the ledger holds once it has caught up with the upstream, or at the end of our patience."""
    if launch.ledger is None:
        return {}
    posts, deadline = upstream_count(bed), time.monotonic() + LEDGER_PATIENCE
    while (booked := launch.ledger()) < posts and time.monotonic() < deadline:
        time.sleep(0.5)
    return {"booked": booked, "posts": posts}


def attend(bed: Bed, contender: Contender, cases: str, row: Row) -> None:
    """Starts a contender, measures it, and fills its row as far as it gets."""
    start_upstream(bed)
    launch, process = None, None
    aim = Aim(bed.upstream_port)
    if contender.launch is not None:
        launch = contender.launch(bed)
        process = start(bed, launch)
        aim = Aim(bed.port, launch.key, launch.headers)
    probe(aim)
    warm_up(bed, aim)
    row["idle_mib"] = memory_mib(tree(process.pid)) if process else 0
    for case in cases:
        settle(tree(process.pid) if process else [])
        pid, aside = (process.pid if process else None), (launch.aside if launch else ())
        row["cases"][case] = measure(bed, aim, CASES[case], pid=pid, aside=aside)
        if process and process.poll() is not None:
            raise Trouble(f"ended in case {case} with code {process.returncode}")
    if launch:
        row |= settled_ledger(bed, launch)


def one(contender: Contender, cases: str, cores: Cores, number: int) -> Row:
    row: Row = {"name": contender.name, "round": number, "cases": {}, "idle_mib": 0}
    with make_bed(cores) as bed:
        try:
            attend(bed, contender, cases, row)
        except (Trouble, OSError, subprocess.SubprocessError) as error:
            row["failed"] = str(error)
            print(bed.log_tail(), file=sys.stderr)
    return row


# --- a run -------------------------------------------------------------------------------------------------


def choose(names: Sequence[str]) -> list[Contender]:
    """The contenders that can run; a line for each that cannot."""
    chosen = []
    for name in names or CONTENDERS:
        if missing := CONTENDERS[name].missing():
            print(f"{name} is left out: {missing}", file=sys.stderr)
        else:
            chosen.append(CONTENDERS[name])
    return chosen


def circumstances(options: argparse.Namespace, cores: Cores) -> dict[str, object]:
    """What a reader of the results needs to know about the machine."""
    model = ""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    versions = {}
    for name in ("uvicorn", "uvloop", "httptools", "starlette"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": interpreter(),
        "versions": versions,
        "pinned": cores.contender is not None,
        "rounds": options.rounds,
        "load_average_before": os.getloadavg(),
    }


def brief(row: Row) -> str:
    costs = (f"{case} {seen['cpu_us'] or 0:.1f}us" for case, seen in row["cases"].items())
    return f"round {row['round']}  {row['name']:<18} {' '.join(costs)}  {row.get('failed', '')}"


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    cores = Cores(None, None) if options.no_pin else Cores.apart()
    contenders, rows, began = choose(options.names), list[Row](), time.monotonic()
    RESULTS.mkdir(exist_ok=True)
    done = {"run": circumstances(options, cores), "rows": rows}
    for number in range(options.rounds):
        for contender in list(contenders):
            row = one(contender, options.cases, cores, number)
            rows.append(row)
            if row.get("failed"):
                contenders.remove(contender)  # the next round would only fail again
            print(brief(row), file=sys.stderr, flush=True)
            (RESULTS / f"{options.output}.json").write_text(json.dumps(done, indent=1))
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    return done


def report(runs: Sequence[dict[str, Any]], rows: Sequence[Row]) -> str:
    run = Run(rows)
    pythons = [in_words(done["run"]["python"]) for done in runs]
    cases = "\n".join(f"- {case}: {CASES[case].words}" for case in run.cases)
    return "\n".join((*pythons, "", cases + "\n", figures(run), ratios(run), remarks(run)))


# --- the command line --------------------------------------------------------------------------------------


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of gateways per request and per streamed chunk.")
    parser.add_argument("names", nargs="*", metavar="CONTENDER", help=f"of: {', '.join(CONTENDERS)}")
    parser.add_argument("-n", "--rounds", type=int, default=3)
    parser.add_argument("-c", "--cases", default=USUAL_CASES, help=f"letters of {''.join(CASES)}")
    parser.add_argument("-o", "--output", default="run", help="name of the files in results/")
    parser.add_argument("--no-pin", action="store_true", help="leave the placing on cores to the kernel")
    parser.add_argument("--quick", action="store_true", help="1 round of A and C with llmgateway and nginx")
    parser.add_argument("--targets", action="store_true", help="judge the targets; code 1 if one is missed")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE", help="print earlier results only")
    parser.add_argument("--list", action="store_true", help="say which contenders are installed")
    options = parser.parse_args(words)
    if options.quick:
        options.rounds, options.cases, options.names = 1, "AC", options.names or list(QUICK)
    if unknown := [name for name in options.names if name not in CONTENDERS]:
        parser.error(f"no such contender: {', '.join(unknown)}")
    if unknown := [case for case in options.cases if case not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}")
    return options


def main(words: Sequence[str]) -> int:
    options = arguments(words)
    if options.list:
        for contender in CONTENDERS.values():
            print(f"{contender.name:<18} {contender.missing() or 'installed'}")
        return 0
    if options.table:
        runs = [json.loads(file.read_text()) for file in options.table]
    else:
        compile_tools()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing we started stays behind
        runs = [run_all(options)]
    rows = [row for run in runs for row in run["rows"]]
    text = report(runs, rows)
    all_met, lines = targets(Run(rows))
    if options.targets:
        text += "\n" + lines
    if not options.table:
        (RESULTS / f"{options.output}.md").write_text(text)
    print(text)
    if not any(row["cases"] for row in rows):
        return 1
    return 1 if options.targets and not all_met else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
