"""The tables of the plan, as they stand in the page."""

import re
from collections.abc import Callable, Mapping, Sequence

from tests.capacity.plan import GIB, MIB, Load, Measured, Plan, Prices, Shape, plan
from tests.capacity.spread import fullest, hashed, written
from tests.lab.processes import ROOT

PAGE = ROOT / "docs/operations/capacity.md"
SIZES = (
    ("a faculty", Load(requests=1e6, streams=200)),
    ("a university", Load(requests=10e6, streams=1500)),
    ("the goal", Load()),
)
SHARDS = 3


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def planned() -> str:
    plans = [(name, load, plan(load, Measured(), Shape(), Prices())) for name, load in SIZES]
    what: list[tuple[str, Callable[[Load, Plan], str]]] = [
        ("requests a month", lambda load, _: f"{load.requests:,.0f}"),
        ("streams at once", lambda load, _: f"{load.streams:,}"),
        ("requests a second, mean and peak", lambda _, made: f"{made.mean:.1f}, {made.peak:.0f}"),
        ("processors that are busy at the peak", lambda _, made: f"{made.processors:.2f}"),
        ("workers, pods (one may be gone)", lambda _, made: f"{made.workers}, {made.pods}"),
        ("memory of a pod in use", lambda _, made: f"{made.pod_bytes / MIB:.0f} MiB"),
        ("Redis: share of one processor", lambda _, made: f"{made.redis_share:.2%}"),
        ("MongoDB: inserts a second", lambda _, made: f"{made.inserts:.0f}"),
        ("records after 400 days", lambda _, made: f"{made.ledger_bytes / 1e9:.0f} GB"),
        ("their indexes", lambda _, made: f"{made.index_bytes / 1e9:.0f} GB"),
        ("shards", lambda _, made: f"{made.shards}"),
        ("hours at the peak without MongoDB", lambda _, made: f"{made.outage / 3600:.0f}"),
        ("a month, in euros", lambda _, made: f"{made.cost:,.0f}"),
    ]
    rows = [[text, *(say(load, made) for _, load, made in plans)] for text, say in what]
    return table(["", *(name for name, *_ in plans)], rows)


def spread() -> str:
    everything = written(20_000, 10_000)
    old, new = everything[:10_000], everything[10_000:]
    keys: dict[str, Callable[..., str | int]] = {
        "`{_id: 1}`": lambda one: one.id,
        "`{user: 1, _id: 1}`": lambda one: one.user,
        '`{_id: "hashed"}`': lambda one: hashed(one.id),
    }
    rows = [[name, f"{fullest(old, new, by, SHARDS):.0%}"] for name, by in keys.items()]
    return table(["shard key", f"of new records, on the busiest of {SHARDS} shards"], rows)


def assumed() -> str:
    has, shape, prices = Measured(), Shape(), Prices()
    rows = [
        ["a request, all limits on", f"{has.request * 1e6:.0f} µs of a worker, "
         f"{has.redis_request * 1e6:.0f} µs of Redis"],
        ["a chunk of a stream", f"{has.chunk * 1e6:.0f} µs, {Load().pace:g} a second"],
        ["an open stream", f"{has.stream_bytes / 1024:.0f} KiB"],
        ["a worker", f"{has.worker_bytes / MIB:.0f} MiB at rest, at most {has.worker_streams:,} streams, "
         f"{shape.busy:.0%} busy"],
        ["a record", f"{has.record_bytes:.0f} bytes, {has.index_bytes:.0f} in indexes, "
         f"{has.journal_bytes:.0f} in the journal"],
        ["the peak", f"{Load().peak:g} times the mean"],
        ["a journal's volume", f"{shape.volume_bytes / GIB:.0f} GiB a pod"],
        ["prices", f"{prices.processor:g} a processor, {prices.gib:g} a GiB, {prices.gb:.2f} a GB"],
    ]  # fmt: skip
    return table(["what", "figure"], rows)


TABLES: Mapping[str, Callable[[], str]] = {"assumed": assumed, "planned": planned, "spread": spread}


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    for name, made in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, rf"\g<1>{made()}\n\g<2>", text, flags=re.DOTALL)
        assert count == 1, f"one place for the table {name}"
    return text
