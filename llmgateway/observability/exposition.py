"""The metrics of all processes as one page: each writes its samples to a file, and whoever is scraped adds
them up."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from llmgateway.observability.metrics import FAMILIES, Family, Labels, Sample

PREFIX = "llmgateway"
FOLDS: Mapping[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
LIVING, RETIRED = ".samples", ".retired"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Sample]).decode


class Board:
    """Where the processes of one machine write their samples, each in a file of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = directory / f"{os.getpid()}{LIVING}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def publish(self, samples: Iterable[Sample]) -> None:
        draft = self._own.with_suffix(".draft")
        draft.write_bytes(_encode(list(samples)))
        draft.rename(self._own)

    def others(self) -> Iterator[list[Sample]]:
        """What the other processes published last; of those that have ended, all but the gauges."""
        for path in self._directory.iterdir():
            if path == self._own or path.suffix not in (LIVING, RETIRED):
                continue
            with contextlib.suppress(OSError, msgspec.DecodeError):
                samples = _decode(path.read_bytes())
                is_alive = path.suffix == LIVING and is_running(int(path.stem))
                yield [sample for sample in samples if is_alive or FAMILIES[sample.family].kind != "gauge"]


def wipe(directory: Path) -> None:
    """Forgets what an earlier run wrote: process ids are used again."""
    for path in directory.glob("*"):
        path.unlink(missing_ok=True)


def retire(directory: Path, pid: int) -> None:
    """A process has ended: what it counted stays."""
    path = directory / f"{pid}{LIVING}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(directory / f"{pid}-{path.stat().st_ino}{RETIRED}")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Page(Collector):
    """One scrape."""

    def __init__(self, samples: Iterable[Iterable[Sample]]) -> None:
        self._found: dict[str, dict[Labels, list[list[float]]]] = {}
        for process in samples:
            for sample in process:
                by_labels = self._found.setdefault(sample.family, {})
                by_labels.setdefault(sample.labels, []).append(sample.values)

    @override
    def collect(self) -> Iterator[Metric]:
        for name, family in FAMILIES.items():
            found = self._found.get(name, {})
            if found or not family.labels:
                yield _metric(f"{PREFIX}_{name}", family, found)


def exposed(samples: Iterable[Iterable[Sample]], accept: str, *, alone: bool) -> tuple[bytes, str]:
    """The page and its content type. What the one process uses of the machine is on it where there is but
    one."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page(samples))
    if alone:
        ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _metric(name: str, family: Family, found: dict[Labels, list[list[float]]]) -> Metric:
    if family.kind == "histogram":
        return _histogram(HistogramMetricFamily(name, family.help, labels=family.labels), family, found)
    fold = FOLDS["sum" if family.kind == "counter" else family.folds]
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.help, labels=family.labels)
    for labels, values in found.items() or [((), [[0.0]])]:
        metric.add_metric(labels, fold(value for (value,) in values))
    return metric


def _histogram(
    metric: HistogramMetricFamily, family: Family, found: dict[Labels, list[list[float]]]
) -> HistogramMetricFamily:
    edges = [f"{bound * family.scale:g}" for bound in family.bounds] + ["+Inf"]
    for labels, values in found.items():
        *counts, total = (sum(column) for column in zip(*values, strict=True))
        buckets = list(zip(edges, accumulate(counts), strict=True))
        metric.add_metric(labels, buckets=buckets, sum_value=total * family.scale)
    return metric
