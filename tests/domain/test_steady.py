from datetime import timedelta

from llmgateway.domain.steady import SteadyClock
from tests.doubles import SetClock


def test_r_fault_50_dates_go_on_by_the_monotonic_seconds_alone() -> None:
    clock = SetClock()
    began = clock.now()
    steady = SteadyClock(clock)
    clock.at -= timedelta(days=3)
    assert steady.now() == began
    clock.seconds += 90
    assert steady.now() == began + timedelta(seconds=90)
    assert steady.monotonic() == clock.monotonic()
