"""The replicas that models are served from, as this process has found them."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Literal, Protocol

from msgspec import Struct

from llmgateway.control.moments import to_the_millisecond
from llmgateway.domain.catalog import Catalog
from llmgateway.domain.ports import Clock


class ReplicaHealth(Protocol):
    """`ejected_until` is a time of the monotonic clock."""

    in_flight: int
    ejected_until: float

    @property
    def is_up(self) -> bool: ...


Seen = Callable[[], Mapping[str, ReplicaHealth]]
"""The health of every address that was called, by its URL."""


class ReplicaView(Struct, frozen=True, kw_only=True):
    """`in_flight` and `state` are those of the process that answers; `models` are served from there."""

    address: str
    replica: str
    providers: list[str]
    models: list[str]
    in_flight: int
    state: Literal["up", "ejected"]
    ejected_until: datetime | None


def replica_views(catalog: Catalog, seen: Mapping[str, ReplicaHealth], clock: Clock) -> list[ReplicaView]:
    """By address; one that was never called is up."""
    places: dict[tuple[str, str], dict[str, set[str]]] = {}
    for model in catalog:
        for target in model.targets:
            place = places.setdefault((target.url, target.replica), {"models": set(), "providers": set()})
            place["models"].add(model.id)
            place["providers"].add(target.provider)
    views = []
    for (url, replica), place in sorted(places.items()):
        health = seen.get(url)
        is_up = health is None or health.is_up
        views.append(ReplicaView(
            address=url, replica=replica,
            providers=sorted(place["providers"]), models=sorted(place["models"]),
            in_flight=health.in_flight if health else 0, state="up" if is_up else "ejected",
            ejected_until=None if health is None or is_up else _date(health.ejected_until, clock),
        ))  # fmt: skip
    return views


def _date(until: float, clock: Clock) -> datetime:
    return to_the_millisecond(clock.now() + timedelta(seconds=until - clock.monotonic()))
