"""What operators see of the replicas."""

from datetime import timedelta

from msgspec import structs

from llmgateway.control.replicas import replica_views
from llmgateway.domain.catalog import Catalog, Model, Target
from llmgateway.upstream.health import FAILURES, Replicas
from tests.control.desk import model
from tests.doubles import SetClock

HERE, THERE = "http://10.0.0.7:8000/v1", "http://10.0.0.8:8000/v1"


def test_replicas_are_told_by_address() -> None:
    clock = SetClock()
    both = structs.replace(model("a"), targets=(Target(url=HERE, model="A"), Target(url=THERE, model="A")))
    echo = Model(id="echo", targets=(Target(provider="echo", url="", model="echo"),))
    replicas = Replicas(clock.monotonic)
    replicas.of(both.targets[0]).in_flight = 3
    for _ in range(FAILURES):
        replicas.of(both.targets[1]).failed()
    clock.move(timedelta(seconds=10))
    views = replica_views(Catalog([both, model("b", url=HERE), echo]), replicas.seen(), clock)
    assert [(view.replica, view.models, view.in_flight, view.state) for view in views] == [
        ("echo", ["echo"], 0, "up"),
        ("10.0.0.7:8000", ["a", "b"], 3, "up"),
        ("10.0.0.8:8000", ["a"], 0, "ejected"),
    ]
    assert views[2].ejected_until == clock.now() + timedelta(seconds=20)
    assert views[1].ejected_until is None
