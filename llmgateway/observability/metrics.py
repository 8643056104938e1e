"""Metrics of calls: closed records become counts in plain lists, at about a microsecond each.

Prometheus's own objects do not count here: under gunicorn they write to a mapped file at every step, nothing
can be added to their histograms in bulk, and a collector of one's own is not allowed. So every process counts
for itself, and a scrape adds up what all of them wrote down (`exposition.py`).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from msgspec import Struct

from llmgateway.domain.call import Record

MS_BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000)
TOKEN_US_BOUNDS = (1000, 2500, 5000, 10_000, 20_000, 30_000, 50_000, 75_000, 100_000, 200_000, 1_000_000)
OVERHEAD_US_BOUNDS = (50, 100, 200, 300, 500, 750, 1000, 2000, 5000, 10_000, 50_000, 100_000, 1_000_000)
OTHER = "other"
AT_ONCE = 128  # calls that are counted together, if there are as many before somebody looks

Labels = tuple[str, ...]


class Family(Struct, frozen=True, kw_only=True):
    """`bounds` are those of a histogram, in units of `scale` seconds. `folds` says how the gauges of several
    processes make one: their sum, or the largest or smallest of them."""

    kind: Literal["counter", "histogram", "gauge"]
    help: str
    labels: Labels = ()
    bounds: tuple[int, ...] = ()
    scale: float = 1.0
    folds: Literal["sum", "max", "min"] = "sum"


def _histogram(help: str, bounds: tuple[int, ...], scale: float) -> Family:  # noqa: A002 - its name there
    return Family(kind="histogram", help=help, labels=("route", "model"), bounds=bounds, scale=scale)


FAMILIES: Mapping[str, Family] = {
    "requests": Family(kind="counter", help="Calls that were accepted, by how they ended.",
                       labels=("route", "model", "status", "outcome")),
    "tokens": Family(kind="counter", help="Tokens; cached are part of input, reasoning of output.",
                     labels=("model", "type")),
    "stream_endings": Family(kind="counter", help="How streams ended.", labels=("ending",)),
    "upstream_retries": Family(kind="counter", help="Tries at another server, by why the one before failed.",
                               labels=("reason",)),
    "journal_failures": Family(kind="counter", help="Writes that the journal's disk refused."),
    "recovered_records": Family(kind="counter", help="Records of dead workers that were settled."),
    "dead_letters": Family(kind="counter", help="Records that the store refused for good."),
    "job_failures": Family(kind="counter", help="Runs of periodic work that failed.", labels=("job",)),
    "request_duration_seconds": _histogram("From a call's arrival to its end.", MS_BOUNDS, 1e-3),
    "time_to_first_token_seconds": _histogram("From arrival to the first byte of a stream.", MS_BOUNDS, 1e-3),
    "inter_token_seconds": _histogram("Mean time between the tokens of a stream.", TOKEN_US_BOUNDS, 1e-6),
    "overhead_seconds": _histogram("What the gateway itself adds to a call.", OVERHEAD_US_BOUNDS, 1e-6),
    "ratelimit_refusals": Family(kind="counter", help="Calls that were refused, by the limit that did.",
                                 labels=("limit",)),
    "waiting_requests": Family(kind="gauge", help="Calls that wait for a place of a full model.",
                               labels=("model",)),
    "certificate_expiry_timestamp_seconds": Family(kind="gauge", labels=("certificate",), folds="min",
                                                   help="When a certificate ends."),
    "strange_records": Family(kind="counter", help="Records of the shared cache that were another's; none is "
                                                   "believed."),
    "inflight_requests": Family(kind="gauge", help="Calls under way."),
    "upstream_up": Family(kind="gauge", help="1 while a replica is asked, 0 while it is ejected.",
                          labels=("model", "replica"), folds="min"),
    "usage_spool_records": Family(kind="gauge", help="Settled records that are not in the store yet."),
    "usage_spool_bytes": Family(kind="gauge", help="Bytes of the journal that are not in the store yet."),
    "usage_spool_oldest_seconds": Family(kind="gauge", folds="max",
                                         help="How long the oldest of these records has waited."),
    "ledger_faults": Family(kind="gauge", folds="max", labels=("kind",),
                            help="What the last reconciliation found; all but dead letters is put right."),
    "job_last_success_timestamp_seconds": Family(kind="gauge", labels=("job",), folds="max",
                                                 help="When a job last came to its end."),
    "job_duration_seconds": Family(kind="gauge", labels=("job",), folds="max",
                                   help="How long its last run took."),
    "limit_sums_healed": Family(kind="counter", help="Sums of limits that had drifted from the ledger's."),
    "leader": Family(kind="gauge", help="1 for the process that does the periodic work of all."),
    "store_up": Family(kind="gauge", help="1 while a store answers.", labels=("store",), folds="min"),
    "config_version": Family(kind="gauge", help="Times the configuration was taken over.", folds="max"),
    "key_propagation_seconds": Family(kind="gauge", help="How long a change took to spread.", folds="max"),
    "build_info": Family(kind="gauge", help="1, with the version.", labels=("version",), folds="max"),
}  # fmt: skip


class Sample(Struct, frozen=True, array_like=True):
    """One value of a family; of a histogram the counts of its buckets, the last beyond all bounds, then
    the sum."""

    family: str
    labels: Labels
    values: list[float]


class _Timing:
    """The histograms of one route and model. Each list ends with the sum."""

    __slots__ = ("cached", "duration", "input", "inter_token", "output", "overhead", "reasoning", "ttft")

    def __init__(self) -> None:
        self.duration = [0] * (len(MS_BOUNDS) + 2)
        self.ttft = [0] * (len(MS_BOUNDS) + 2)
        self.inter_token = [0] * (len(TOKEN_US_BOUNDS) + 2)
        self.overhead = [0] * (len(OVERHEAD_US_BOUNDS) + 2)
        self.input = self.output = self.cached = self.reasoning = 0


class _Cell:
    """The calls of one route, model, status and outcome."""

    __slots__ = ("count", "is_timed", "timing")

    def __init__(self, timing: _Timing, *, is_timed: bool) -> None:
        self.count = 0
        self.timing = timing
        self.is_timed = is_timed


class CallMetrics:
    """A sink of closed records. `label_of` gives a model's id for what was asked for, None if that is no
    model."""

    def __init__(self, label_of: Callable[[str], str | None]) -> None:
        self._label_of = label_of
        self._cells: dict[tuple[str, str, int, str | None], _Cell] = {}
        self._timings: dict[tuple[str, str], _Timing] = {}
        self._endings: dict[str, int] = {}
        self._retries: dict[str, int] = {}
        self._waiting: list[Record] = []

    def __call__(self, record: Record) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= AT_ONCE:
            self._count_all()

    def _count_all(self) -> None:
        records, self._waiting = self._waiting, []
        for record in records:
            self._count(record)

    def _count(self, record: Record) -> None:
        cell = self._cells.get((record.endpoint, record.model, record.status, record.outcome))
        if cell is None:
            cell = self._open_cell(record)
        cell.count += 1
        timing, tokens = cell.timing, record.tokens
        timing.input += tokens.prompt
        timing.output += tokens.completion
        if tokens.cached or tokens.reasoning:
            timing.cached += tokens.cached
            timing.reasoning += tokens.reasoning
        if len(record.attempts) > 1:
            self._note_retries(record)
        if cell.is_timed:
            spent, histogram = record.duration_ms, timing.duration
            histogram[bisect_left(MS_BOUNDS, spent)] += 1
            histogram[-1] += spent
            spent, histogram = record.overhead_us, timing.overhead
            histogram[bisect_left(OVERHEAD_US_BOUNDS, spent)] += 1
            histogram[-1] += spent
        if record.stream:
            self._note_stream(record, timing)

    def _note_stream(self, record: Record, timing: _Timing) -> None:
        ending, ttft = record.outcome or OTHER, record.ttft_ms
        self._endings[ending] = self._endings.get(ending, 0) + 1
        if ttft is None:
            return
        timing.ttft[bisect_left(MS_BOUNDS, ttft)] += 1
        timing.ttft[-1] += ttft
        gaps = record.tokens.completion - 1
        if gaps > 0:
            mean = (record.duration_ms - ttft) * 1000 // gaps
            timing.inter_token[bisect_left(TOKEN_US_BOUNDS, mean)] += 1
            timing.inter_token[-1] += mean

    def _note_retries(self, record: Record) -> None:
        """Each attempt but a call's last led to another."""
        for attempt in record.attempts[:-1]:
            self._retries[attempt.reason] = self._retries.get(attempt.reason, 0) + 1

    def _open_cell(self, record: Record) -> _Cell:
        model = self._label_of(record.model) or OTHER
        timing = self._timings.setdefault((record.endpoint, model), _Timing())
        own = (record.endpoint, model, record.status, record.outcome)
        cell = self._cells.setdefault(own, _Cell(timing, is_timed=record.outcome != "recovered"))
        if model != OTHER:  # an alias is another name of the same cell; what is no name is not remembered
            self._cells[record.endpoint, record.model, record.status, record.outcome] = cell
        return cell

    def samples(self) -> Iterable[Sample]:
        """All there is now; the lists are copies."""
        self._count_all()
        seen: set[int] = set()
        for (route, model, status, outcome), cell in self._cells.items():
            if id(cell) not in seen:
                seen.add(id(cell))
                yield Sample("requests", (route, model, str(status), outcome or OTHER), [cell.count])
        for (route, model), timing in self._timings.items():
            yield from _timing_samples(route, model, timing)
        for ending, count in self._endings.items():
            yield Sample("stream_endings", (ending,), [count])
        for reason, count in self._retries.items():
            yield Sample("upstream_retries", (reason,), [count])


def _timing_samples(route: str, model: str, timing: _Timing) -> Iterable[Sample]:
    histograms = {
        "request_duration_seconds": timing.duration, "time_to_first_token_seconds": timing.ttft,
        "inter_token_seconds": timing.inter_token, "overhead_seconds": timing.overhead,
    }  # fmt: skip
    for family, counts in histograms.items():
        if any(counts[:-1]):
            yield Sample(family, (route, model), [*counts])
    for kind in ("input", "output", "cached", "reasoning"):
        yield Sample("tokens", (model, kind), [getattr(timing, kind)])
