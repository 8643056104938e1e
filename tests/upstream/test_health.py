"""What calls tell about replicas: who is asked first, who is left alone, and who is tried again."""

import pytest

from llmgateway.domain.catalog import Target
from llmgateway.upstream.health import EJECTED_MOST, EJECTED_SECONDS, FAILURES, Replica, Replicas
from tests.doubles import SetClock

A, B, C = (Target(url=f"http://10.0.0.{n}/v1", model="m") for n in (1, 2, 3))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def replicas(clock: SetClock) -> Replicas:
    return Replicas(clock.monotonic)


def fail(replica: Replica, times: int = FAILURES) -> None:
    for _ in range(times):
        replica.failed()


def test_the_given_order_holds_among_equals(replicas: Replicas) -> None:
    assert replicas.order([B, A, C]) == [B, A, C]


def test_the_least_busy_is_asked_first(replicas: Replicas) -> None:
    replicas.of(A).in_flight = 2
    replicas.of(B).in_flight = 1
    assert replicas.order([A, B, C]) == [C, B, A]


def test_a_fallback_waits_for_the_replicas_before_it_to_fail(replicas: Replicas) -> None:
    vendor = Target(url="https://vendor.example/v1", model="m-large")
    replicas.of(A).in_flight = replicas.of(B).in_flight = 100
    assert replicas.order([A, vendor, B]) == [A, B, vendor]
    assert replicas.order([vendor, A]) == [vendor, A]
    fail(replicas.of(A))
    assert replicas.order([A, vendor, B]) == [B, vendor, A]
    fail(replicas.of(B))
    assert replicas.order([A, vendor, B]) == [vendor, A, B]


def test_a_few_failures_are_forgiven(replicas: Replicas) -> None:
    replica = replicas.of(A)
    for _ in range(10):
        fail(replica, FAILURES - 1)
        replica.succeeded()
    assert replica.is_up
    assert replicas.order([A, B]) == [A, B]


def test_r_fault_16_five_in_a_row_put_a_replica_last(replicas: Replicas, clock: SetClock) -> None:
    fail(replicas.of(A))
    replicas.of(B).in_flight = 100
    assert replicas.order([A, B]) == [B, A]
    clock.pass_seconds(EJECTED_SECONDS - 0.001)
    assert not replicas.of(A).is_up
    clock.pass_seconds(0.001)
    assert replicas.order([A, B]) == [A, B]


def test_r_fault_16_after_its_time_one_call_tries(replicas: Replicas, clock: SetClock) -> None:
    fail(replicas.of(A))
    clock.pass_seconds(EJECTED_SECONDS)
    replicas.of(A).in_flight = 1
    assert replicas.order([A, B]) == [B, A]
    replicas.of(A).in_flight = 0
    replicas.of(A).succeeded()
    replicas.of(A).in_flight = 1
    assert replicas.of(A).is_up


def test_r_fault_16_a_failed_try_doubles_the_time(replicas: Replicas, clock: SetClock) -> None:
    replica = replicas.of(A)
    fail(replica)
    expected = EJECTED_SECONDS
    for _ in range(8):
        clock.pass_seconds(expected)
        assert replica.is_up
        replica.failed()
        expected = min(expected * 2, EJECTED_MOST)
        assert replica.ejected_until == clock.monotonic() + expected
    assert expected == EJECTED_MOST


def test_calls_that_were_under_way_do_not_lengthen_it(replicas: Replicas, clock: SetClock) -> None:
    replica = replicas.of(A)
    fail(replica)
    until = replica.ejected_until
    clock.pass_seconds(1)
    fail(replica, 20)
    assert replica.ejected_until == until


def test_a_success_forgets_it_all(replicas: Replicas, clock: SetClock) -> None:
    replica = replicas.of(A)
    fail(replica)
    clock.pass_seconds(EJECTED_SECONDS)
    replica.failed()
    clock.pass_seconds(2 * EJECTED_SECONDS)
    replica.succeeded()
    fail(replica)
    assert replica.ejected_until == clock.monotonic() + EJECTED_SECONDS


def test_r_fault_16_all_are_asked_when_all_are_down(replicas: Replicas, clock: SetClock) -> None:
    for target in (C, A, B):
        fail(replicas.of(target))
        clock.pass_seconds(1)
    assert replicas.order([A, B, C]) == [C, A, B]


def test_what_was_seen_is_told_by_address(replicas: Replicas) -> None:
    replica = replicas.of(A)
    assert replicas.of(A) is replica
    assert replicas.seen() == {A.url: replica}
