"""Whether kinds of things can be told apart by how long they take."""

import random
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence

Times = Mapping[str, Sequence[float]]


async def interleaved(works: Mapping[str, Callable[[], Awaitable[object]]], rounds: int) -> Times:
    """Seconds of every kind: one of each in a round, in another order each time, so that whatever else the
    machine does meets all of them alike."""
    chance, times = random.Random(1947), dict[str, list[float]]({kind: [] for kind in works})
    for _ in range(rounds):
        for kind in chance.sample(list(works), len(works)):
            began = time.perf_counter()
            await works[kind]()
            times[kind].append(time.perf_counter() - began)
    return times


def guessed(times: Times) -> dict[str, float]:
    """How often somebody who sees one time of a kind and one of another kind says rightly which is which, by
    the better rule of the two: 0.5 is no better than tossing a coin. (The statistic of Mann and Whitney.)"""
    found = {}
    for kind, own in times.items():
        others = sorted(seconds for other, those in times.items() if other != kind for seconds in those)
        below = sum(bisect_left(others, one) + bisect_right(others, one) for one in own) / 2
        share = below / (len(own) * len(others))
        found[kind] = max(share, 1 - share)
    return found
