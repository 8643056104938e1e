"""Tables of a run in Markdown: the figures, the ratios to the peers of the same run, and the targets."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.bench.cases import CASES, STREAMS_IN_C

Row = dict[str, Any]  # one contender in one round
Cell = Callable[[str], str]
Verdict = tuple[bool | None, str]

PER = {"L": "request", "A": "request", "B": "chunk", "P": "chunk", "C": "chunk", "H": "request", "U": "chunk"}
RATIO_PEERS = ("nginx", "sglang-router", "litellm")
GATEWAYS = ("llmgateway", "llmgateway-fleet")
UNQUIET = 0.15


class Run:
    """The rows of a run, asked by contender, case and figure."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.names = list(dict.fromkeys(str(row["name"]) for row in rows))
        self.cases = [case for case in CASES if any(case in row["cases"] for row in rows)]

    def rounds(self, name: str) -> dict[int, Row]:
        return {row["round"]: row for row in self.rows if row["name"] == name}

    def values(self, name: str, case: str, figure: str) -> list[float]:
        found = (row["cases"].get(case, {}).get(figure) for row in self.rounds(name).values())
        return [value for value in found if value is not None]

    def ratios(self, name: str, to: str, case: str, figure: str = "cpu_us") -> list[float]:
        """Round by round, so that a disturbed round disturbs both sides."""
        peers = self.rounds(to)
        pairs = (
            (row["cases"].get(case, {}).get(figure), peers[number]["cases"].get(case, {}).get(figure))
            for number, row in self.rounds(name).items()
            if number in peers
        )
        return [mine / theirs for mine, theirs in pairs if mine and theirs]

    def per_stream_kib(self, name: str) -> list[float]:
        """The peak of case C over idle, divided by the streams."""
        return [
            (row["cases"]["C"]["peak_mib"] - row["idle_mib"]) * 1024 / STREAMS_IN_C
            for row in self.rounds(name).values()
            if row["cases"].get("C", {}).get("cpu_us")
        ]

    def added_ms(self, name: str, share: str = "p99") -> list[float]:
        """Delay of a chunk in case C beyond that of the upstream alone."""
        direct = self.values("direct", "C", f"delay_{share}_us")
        if not direct:
            return []
        own = statistics.median(direct)
        return [(value - own) / 1000 for value in self.values(name, "C", f"delay_{share}_us")]

    def trouble(self, name: str) -> tuple[int, int]:
        """Errors, and streams cut at the time limit."""
        errors = sum(sum(self.values(name, case, "errors")) for case in self.cases)
        cut = sum(sum(self.values(name, case, "cut")) for case in self.cases)
        return int(errors), int(cut)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """median (min-max)"""
    if not values:
        return "-"
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def middle(values: Sequence[float], digits: int = 1) -> str:
    return f"{statistics.median(values):,.{digits}f}" if values else "-"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# --- figures -----------------------------------------------------------------------------------------------


def cost(run: Run, case: str, name: str) -> str:
    return spread(run.values(name, case, "cpu_us"), 2 if case == "B" else 1)


def pace(run: Run, case: str, name: str) -> str:
    return middle(run.values(name, case, "per_second"), 0)


def delay(run: Run, case: str, name: str) -> str:
    shares = (run.values(name, case, f"delay_{share}_us") for share in ("p50", "p99"))
    return " / ".join(middle([us / 1000 for us in values]) for values in shares)


def idle(run: Run, name: str) -> str:
    return middle([row["idle_mib"] for row in run.rounds(name).values() if row["idle_mib"]], 0)


def case_columns(run: Run, case: str) -> dict[str, Cell]:
    if case == "L":
        return {"L p50 us": lambda name: spread(run.values(name, "L", "latency_p50_us"), 0)}
    shown: dict[str, Cell] = {
        f"{case} us CPU/{PER[case]}": partial(cost, run, case),
        f"{case} {PER[case]}s/s": partial(pace, run, case),
    }
    if case == "A":
        shown["A p99 ms"] = lambda name: middle([us / 1000 for us in run.values(name, "A", "latency_p99_us")])
    elif case not in ("B", "H"):
        shown[f"{case} delay p50 / p99 ms"] = partial(delay, run, case)
    if case == "C":
        shown["C KiB/stream"] = lambda name: spread(run.per_stream_kib(name), 0)
    return shown


def figures(run: Run) -> str:
    table: dict[str, Cell] = {}
    for case in run.cases:
        table |= case_columns(run, case)
    table["idle MiB"] = partial(idle, run)
    table["errors / cut"] = lambda name: "{} / {}".format(*run.trouble(name))
    body = [[name, *(cell(name) for cell in table.values())] for name in run.names]
    return markdown(["contender", *table], body)


def ratios(run: Run) -> str:
    """CPU cost as a multiple of the peer's; for LiteLLM the other way round, since it is the dearer one."""
    cases = [case for case in run.cases if case != "L"]
    pairs = [(case, peer) for case in cases for peer in RATIO_PEERS if peer in run.names]
    heads = [f"{case}: litellm / it" if peer == "litellm" else f"{case}: it / {peer}" for case, peer in pairs]

    def cell(name: str, case: str, peer: str) -> str:
        if peer == "litellm":
            return spread(run.ratios(peer, name, case), 0)
        return spread(run.ratios(name, peer, case), 2)

    names = [name for name in run.names if name != "direct"]
    return markdown(["CPU ratio", *heads], [[name, *(cell(name, *pair) for pair in pairs)] for name in names])


def failures(run: Run) -> list[str]:
    lines = [f"- {place(row)}: {row['failed']}" for row in run.rows if row.get("failed")]
    for row in run.rows:
        seen = ((case, figures["first_error"]) for case, figures in row["cases"].items())
        lines += [f"- {place(row)}, case {case}: {error}" for case, error in seen if error]
    return lines


def unrest(run: Run) -> list[str]:
    lines = []
    for case in set(run.cases) & {"A", "C"}:
        values = run.values("nginx", case, "cpu_us")
        if values and (wide := max(values) / min(values) - 1) > UNQUIET:
            lines.append(f"- An unquiet machine: nginx varies by {wide:.0%} in case {case}. Run it again.")
    return sorted(lines)


def store_costs(run: Run) -> list[str]:
    lines = []
    for name in run.names:
        costs = ((case, run.values(name, case, "stores_us")) for case in run.cases)
        if told := ", ".join(f"{case} {middle(values, 2)}" for case, values in costs if values):
            lines.append(f"- The stores of {name} took beside it, us CPU: {told}.")
    return lines


def ledgers(run: Run) -> list[str]:
    return [
        f"- {place(row)}: {row['booked']} booked, {row['posts']} accepted by the upstream"
        f"{'' if row['booked'] == row['posts'] else ': THEY DIFFER'}."
        for row in run.rows
        if row.get("booked") is not None
    ]


def place(row: Row) -> str:
    return f"{row['name']}, round {row['round']}"


def remarks(run: Run) -> str:
    """What the reader of the tables should know besides."""
    lines = failures(run) + unrest(run) + store_costs(run) + ledgers(run)
    return "\n".join(lines) + "\n" if lines else ""


# --- targets -----------------------------------------------------------------------------------------------


def verdict(words: str, values: Sequence[float], limit: float, *, at_least: bool = False) -> Verdict:
    """Judged by the median; None where nothing was measured."""
    sign = ">=" if at_least else "<="
    if not values:
        return None, f"not measured  {words} {sign} {limit:g}"
    median = statistics.median(values)
    met = median >= limit if at_least else median <= limit
    return met, f"{'met' if met else 'MISSED':<12}  {words} {sign} {limit:g}: {spread(values, 2)}"


def judge(run: Run, name: str) -> list[Verdict]:
    """Every target for one contender."""
    in_c = run.values(name, "C", "errors") + run.values(name, "C", "cut")
    booked = [row for row in run.rounds(name).values() if row.get("booked") is not None]
    differing = [sum(row["booked"] != row["posts"] for row in booked)] if booked else []
    return [
        verdict("A: CPU per request / nginx", run.ratios(name, "nginx", "A"), 4.0),
        verdict("B: CPU per chunk / nginx", run.ratios(name, "nginx", "B"), 1.3),
        verdict("P: CPU per chunk / nginx", run.ratios(name, "nginx", "P"), 2.2),
        verdict("C: CPU per chunk / nginx", run.ratios(name, "nginx", "C"), 2.0),
        verdict("C: errors and cut streams", [sum(in_c)] if in_c else [], 0),
        verdict("C: added delay p99, ms", run.added_ms(name), 10),
        verdict("C: KiB per stream", run.per_stream_kib(name), 24),
        verdict("A: LiteLLM / it", run.ratios("litellm", name, "A"), 150, at_least=True),
        verdict("ledger: rounds in which it differs", differing, 0),
    ]


def targets(run: Run) -> tuple[bool, str]:
    """Whether nothing was missed, and a line for each target."""
    lines, missed = [], False
    for name in GATEWAYS:
        if name in run.names:
            judged = judge(run, name)
            missed = missed or any(met is False for met, _ in judged)
            lines += [f"{name}:", *(f"  {line}" for _, line in judged)]
    return not missed, "\n".join(lines or ["no llmgateway in this run"]) + "\n"
