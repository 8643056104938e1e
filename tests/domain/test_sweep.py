"""One timer for all deadlines."""

from llmgateway.domain.sweep import NEVER, Sweep


class Thing:
    def __init__(self, due: float, sweep: "Sweep[Thing]", again: float = NEVER) -> None:
        self.due = due
        self.expired: list[float] = []
        self._again = again
        self._sweep = sweep
        sweep.add(self)

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self.due = self._again
        if self._again == NEVER:
            self._sweep.discard(self)


def test_only_what_is_due_expires() -> None:
    sweep = Sweep[Thing]()
    early, late, never = Thing(1, sweep), Thing(2, sweep), Thing(NEVER, sweep)
    sweep.turn(0.9)
    sweep.turn(1.0)
    assert (early.expired, late.expired, never.expired) == ([1.0], [], [])
    sweep.turn(5.0)
    assert late.expired == [5.0]
    assert list(sweep) == [never]


def test_a_thing_may_be_moved_on() -> None:
    sweep = Sweep[Thing]()
    thing = Thing(1, sweep, again=3)
    for now in (1.0, 2.0, 3.0):
        sweep.turn(now)
    assert thing.expired == [1.0, 3.0]
    assert len(sweep) == 1
