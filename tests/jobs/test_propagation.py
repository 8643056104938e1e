from llmgateway.domain.ports import Change, SystemClock
from llmgateway.jobs.background import Background
from llmgateway.jobs.propagation import Propagation
from llmgateway.jobs.ticks import heed_changes
from llmgateway.stores.memory import MemoryState
from tests.doubles import WatchedState
from tests.lab.waiting import eventually


async def test_a_change_is_measured_on_its_way_round() -> None:
    state = MemoryState()
    mine = Propagation(state, SystemClock(), name="a", period=0.01)
    others = Propagation(state, SystemClock(), name="b", period=3600)
    async with Background() as background:
        background.begin(heed_changes(state, [mine.heed, others.heed]), mine.run())
        await eventually(lambda: mine.seconds is not None, "it was measured")
    assert mine.seconds is not None
    assert 0 <= mine.seconds < 5
    assert others.seconds is None


async def test_while_the_state_is_away_nothing_is_measured() -> None:
    state = WatchedState()
    state.is_down = True
    one = Propagation(state, SystemClock(), name="a", period=0.001)
    async with Background() as background:
        background.begin(heed_changes(state, [one.heed]), one.run())
        await eventually(lambda: True, "a moment passes")
    one.heed(Change("users", "/propagation/a"))
    assert one.seconds is None
