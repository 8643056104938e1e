"""From what one worker, one record and one claim cost to what a university needs: arithmetic only."""

import math
from dataclasses import dataclass
from datetime import timedelta

MONTH = timedelta(days=30).total_seconds()
KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Measured:
    """What was measured: CPU seconds, bytes. The first six by the benchmark, those of the ledger by
    `ledger.py` on a real MongoDB (with 50,000 records), the journal's from its segments."""

    request: float = 112e-6  # with all limits on Redis; 84 without
    chunk: float = 29e-6  # in 1,000 slow streams
    redis_request: float = 45e-6  # of Redis itself, with limits; 20 without
    stream_bytes: float = 23 * KIB
    worker_bytes: float = 95 * MIB  # at rest
    worker_streams: int = 1000
    record_bytes: float = 164  # in a compressed collection
    index_bytes: float = 329  # of a record, in all six indexes
    journal_bytes: float = 600


@dataclass(frozen=True)
class Load:
    """`peak`: the busiest minute against the month's mean. `pace`: chunks a second of one stream."""

    requests: float = 100e6  # a month
    streams: int = 10_000  # at once
    peak: float = 8.0
    pace: float = 20.0
    days: int = 400  # that records are kept


@dataclass(frozen=True)
class Shape:
    """How the fleet is cut."""

    workers: int = 2  # of a pod
    busy: float = 0.6  # of a processor, at the peak
    spare: int = 1  # pods that may be gone
    volume_bytes: float = 10 * GIB  # of a pod's journal
    members: int = 3  # of MongoDB's replica set
    shard_bytes: float = 500e9  # from which on another shard is due


@dataclass(frozen=True)
class Prices:
    """Of a month, in euros: assumptions to be replaced by those of one's own."""

    processor: float = 25.0
    gib: float = 3.5
    gb: float = 0.10


@dataclass(frozen=True)
class Plan:
    mean: float  # requests a second
    peak: float
    processors: float  # of the gateway, busy at the peak
    workers: int
    pods: int
    pod_bytes: float
    redis_share: float  # of one processor
    inserts: float  # a second at the peak
    ledger_bytes: float  # of one copy, when nothing is added without something leaving
    index_bytes: float
    shards: int
    outage: float  # seconds at the peak that journals last without MongoDB
    cost: float  # a month


def plan(load: Load, has: Measured, shape: Shape, prices: Prices) -> Plan:
    mean = load.requests / MONTH
    peak = mean * load.peak
    processors = peak * has.request + load.streams * load.pace * has.chunk
    workers = max(math.ceil(processors / shape.busy), math.ceil(load.streams / has.worker_streams))
    pods = math.ceil(workers / shape.workers) + shape.spare
    pod_bytes = shape.workers * (has.worker_bytes + has.worker_streams * has.stream_bytes)
    kept = load.requests * load.days / 30
    ledger, index = kept * has.record_bytes, kept * has.index_bytes
    shards = math.ceil((ledger + index) / shape.shard_bytes)
    return Plan(
        mean=mean, peak=peak, processors=processors, workers=workers, pods=pods, pod_bytes=pod_bytes,
        redis_share=peak * has.redis_request, inserts=peak, ledger_bytes=ledger, index_bytes=index,
        shards=shards, outage=pods * shape.volume_bytes / (peak * has.journal_bytes),
        cost=cost(pods, shards, ledger + index, shape, prices),
    )  # fmt: skip


def cost(pods: int, shards: int, stored: float, shape: Shape, prices: Prices) -> float:
    """Pods of 2 processors and 1 GiB, Redis of 2 members with 1 and 2, MongoDB's with 4 and 16 each."""
    gateway = pods * (2 * prices.processor + prices.gib + shape.volume_bytes / 1e9 * prices.gb)
    redis = 2 * (prices.processor + 2 * prices.gib)
    servers = shards * shape.members * (4 * prices.processor + 16 * prices.gib)
    return gateway + redis + servers + shape.members * stored / 1e9 * prices.gb
