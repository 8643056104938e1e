"""The fair queue: the bound of its paper, weights, nothing saved up, and that it forgets whom it may."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from llmgateway.domain.admission import Turn
from llmgateway.domain.fair import COMPLETION, PACE, PROMPT, Line, Pace

LONGEST_PROMPT, LONGEST_COMPLETION = 500, 300


def turn(id: str, user: str = "alice", *, weight: float = 1.0, prompt: int = 1) -> Turn:
    return Turn(id=id, model="m", user=user, most=1, waiting=100, weight=weight, prompt=prompt)


class Busy:
    """Users who always have a call waiting, also as one of theirs begins: with calls of any size, served in
    any order and pieces."""

    def __init__(self, weights: list[float], most: int, seed: int) -> None:
        self.weights = {f"user{n}": weight for n, weight in enumerate(weights)}
        self.most = most
        self.chance = random.Random(seed)
        self.line = Line()
        self.ids = itertools.count()
        self.running: dict[str, tuple[str, int, int]] = {}  # user, tokens so far, tokens in the end
        self.service = Counter[str]()  # by weight
        self.greedy = self.chance.choice(list(self.weights))
        for user in [*self.weights, *self.weights]:
            self.ask(user)
        self.give()

    def ask(self, user: str) -> None:
        weight = self.weights[user]
        self.line.enter(turn(f"c{next(self.ids)}", user, weight=weight, prompt=self.size(LONGEST_PROMPT)))

    def size(self, largest: int) -> int:
        return self.chance.choice([1, self.chance.randint(1, largest), largest])

    def step(self) -> None:
        id = self.chance.choice(list(self.running))
        user, so_far, end = self.running.pop(id)
        now = min(end, so_far + self.chance.randint(1, 100))
        self.count(user, COMPLETION * (now - so_far))
        if now == end:
            assert self.line.leave(id, now)
            self.give()
        else:
            self.line.served(id, now)
            self.running[id] = user, now, end

    def give(self) -> None:
        while (given := self.line.next(self.most)) is not None:
            self.running[given.id] = given.user, 0, self.size(LONGEST_COMPLETION)
            self.count(given.user, PROMPT * given.prompt)
            for _ in range(self.chance.choice([1, 1, 3]) if given.user == self.greedy else 1):
                self.ask(given.user)

    def count(self, user: str, cost: float) -> None:
        self.service[user] += cost / self.weights[user]  # type: ignore[assignment] # a float is fine here

    @property
    def bound(self) -> float:
        in_flight = self.most * (LONGEST_PROMPT + LONGEST_COMPLETION)
        return 2 * max(PROMPT * LONGEST_PROMPT, COMPLETION * in_flight) / min(self.weights.values())


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5),
    most=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_always_busy_users_are_served_alike(weights: list[float], most: int, seed: int) -> None:
    """In no stretch of time is one served more than the bound above another, by weight."""
    busy = Busy(weights, most, seed)
    pairs = list(itertools.combinations(busy.weights, 2))
    lowest, highest = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for _ in range(600):
        busy.step()
        assert len(busy.running) == most
        for a, b in pairs:
            ahead = busy.service[a] - busy.service[b]
            lowest[a, b] = min(lowest[a, b], ahead)
            highest[a, b] = max(highest[a, b], ahead)
        counters = [busy.line.counter(user) for user in busy.weights]
        assert max(counters) - min(counters) <= busy.bound / 2
    assert all(highest[pair] - lowest[pair] <= busy.bound for pair in pairs)


def test_served_in_the_long_run_by_weight() -> None:
    busy = Busy([1.0, 2.0], 4, seed=7)
    for _ in range(30_000):
        busy.step()
    served = {user: busy.service[user] * busy.weights[user] for user in busy.weights}
    assert served["user1"] / served["user0"] == pytest.approx(2, rel=0.01)


def test_who_returns_begins_where_the_others_are() -> None:
    line = Line()
    for n in range(3):
        line.enter(turn(f"a{n}"))
    line.next(1)
    line.served("a0", 1000)
    line.enter(turn("b", "bob"))
    assert line.counter("bob") == line.counter("alice") == PROMPT + 1000 * COMPLETION
    assert line.counter("anybody") == line.counter("alice")


def test_who_runs_and_waits_for_nothing_saves_nothing_up() -> None:
    """Bob's one call runs while Alice is served more and more: his next one waits its turn."""
    line = Line()
    line.enter(turn("b0", "bob"))
    for n in range(9):
        line.enter(turn(f"a{n}"))
    line.next(2)
    line.next(2)
    line.served("a0", 5000)
    assert line.counter("bob") >= line.counter("alice")


def test_after_an_empty_queue_one_begins_at_the_last_to_leave_it() -> None:
    line = Line()
    line.enter(turn("a"))
    line.next(1)
    line.leave("a", 100)
    assert line.counter("bob") == line.counter("alice") == PROMPT + 100 * COMPLETION


def test_a_counter_never_goes_back() -> None:
    line = Line()
    line.enter(turn("a"))
    line.next(1)
    line.served("a", 100)
    line.served("a", 90)
    assert line.leave("a", 50)
    assert line.counter("alice") == PROMPT + 100 * COMPLETION


def test_an_unknown_prompt_counts_as_one_token() -> None:
    line = Line()
    line.enter(turn("a", prompt=0))
    line.next(1)
    assert line.counter("alice") == PROMPT


def test_a_held_call_takes_a_place_whatever_there_is() -> None:
    line = Line()
    for n in range(3):
        line.hold(turn(f"h{n}"), told=10)
        line.hold(turn(f"h{n}"), told=10)
    line.enter(turn("b", "bob"))
    assert line.running == 3
    assert line.next(2) is None
    line.leave("h0", 20)
    assert line.next(2) is None
    line.leave("h1", 0)
    assert line.next(2) == turn("b", "bob")
    assert line.runs("b")
    assert not line.runs("h1")


def test_of_equals_the_newcomer_is_refused() -> None:
    line = Line()
    line.hold(turn("h"), 0)
    for user in ("alice", "bob"):
        line.enter(turn(user, user))
    assert line.refuse(turn("bob", "bob")).id == "bob"
    line.enter(turn("alice2", "alice"))
    line.enter(turn("bob", "bob"))
    assert line.refuse(turn("bob", "bob")).id == "alice2"
    assert line.waiting == 2


def test_those_who_are_gone_are_forgotten() -> None:
    line = Line()
    for n in range(20_000):
        line.enter(turn(f"c{n}", f"user{n}"))
        assert line.next(1) is not None
        line.leave(f"c{n}", n % 50)
    assert len(line) < 200


def test_coming_and_going_leaves_nothing_behind() -> None:
    line = Line()
    line.hold(turn("h"), 0)
    line.enter(turn("first", "first"))
    for n in range(20_000):
        line.enter(turn(f"c{n}", f"user{n % 3}", prompt=n))
        line.leave(f"c{n}", 0)
    assert line.waiting == 1
    assert len(line._heap) < 200
    line.leave("h", 0)
    assert line.next(1) == turn("first", "first")


def test_the_pace_follows_the_last_minute() -> None:
    pace = Pace()
    assert pace.seconds(3, 0.0) is None
    pace.left(0.0)
    assert pace.seconds(3, 0.0) == pytest.approx(3, rel=0.05)  # one in the first second, as far as is known
    for n in range(1, 600):
        pace.left(n * 0.5)
    assert pace.seconds(10, 300.0) == pytest.approx(5, rel=0.05)
    for n in range(60):
        pace.left(300.0 + n * 5)
    assert pace.seconds(10, 600.0) == pytest.approx(50, rel=0.15)
    assert pace.seconds(1, 600.0 + 20 * PACE) is None
