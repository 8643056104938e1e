"""The fair queue of one model: who runs, who waits, and who is next. Pure: no I/O, no clock.

The virtual token counter of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024. Each user
has a counter of the tokens served to it, divided by its weight; a free place goes to the waiting user with
the smallest one. Who begins to wait is lifted to the smallest counter of those who wait, so nobody saves up
by staying away. `stores/lua/places.lua` does the same on Redis, and a test holds the two together.
"""

import math
from collections import OrderedDict
from heapq import heapify, heappop, heappush

from llmgateway.domain.admission import Turn

PROMPT, COMPLETION = 1.0, 2.0  # what a token counts: those of a completion are made one by one
FORGOTTEN_AT = 64  # users; from then on those whose counters say nothing are dropped
PACE = 60.0  # seconds; what was longer ago hardly counts for the pace


class _Call:
    __slots__ = ("is_running", "told", "turn")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.told = 0
        self.is_running = False


class _User:
    """`waiting` is in the order of arrival."""

    __slots__ = ("counter", "running", "waiting")

    def __init__(self) -> None:
        self.counter = 0.0
        self.running = 0
        self.waiting: OrderedDict[str, _Call] = OrderedDict()


class Line:
    """Counters only grow, so an entry of the heap may be too small, and never too large."""

    __slots__ = ("_calls", "_forget_at", "_heap", "_last", "_users", "_waiting", "running", "waiting")

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._users: dict[str, _User] = {}
        self._waiting: dict[str, _User] = {}  # those who wait
        self._heap: list[tuple[float, str]] = []  # at least one entry for each of those
        self._last = _User()  # who was the last to have nothing waiting any more
        self._forget_at = FORGOTTEN_AT
        self.running = 0  # calls
        self.waiting = 0

    def runs(self, id: str) -> bool:
        call = self._calls.get(id)
        return call is not None and call.is_running

    def enter(self, turn: Turn) -> None:
        """At the end of its user's calls. A call that is known already stays where it is."""
        if turn.id in self._calls:
            return
        call = self._calls[turn.id] = _Call(turn)
        user = self._user(turn.user)
        if not user.waiting:
            user.counter = max(user.counter, self._floor())
            self._waiting[turn.user] = user
            heappush(self._heap, (user.counter, turn.user))
            self._tidy()
        user.waiting[turn.id] = call
        self.waiting += 1

    def hold(self, turn: Turn, told: int) -> None:
        """A call that has a place already, be there room or not."""
        if turn.id in self._calls:
            return
        call = self._calls[turn.id] = _Call(turn)
        call.told = told
        call.is_running = True
        user = self._user(turn.user)
        user.counter = max(user.counter, self._floor())
        user.running += 1
        self.running += 1

    def next(self, most: int) -> Turn | None:
        """Gives a free place to the user who is next, to the call that came first."""
        if self.running >= most or not self.waiting:
            return None
        user = self._waiting[self._lowest()]
        call = next(iter(user.waiting.values()))
        self._unqueue(call, user)
        call.is_running = True
        user.running += 1
        self.running += 1
        _charge(user, call.turn, PROMPT * max(1, call.turn.prompt))
        return call.turn

    def refuse(self, newcomer: Turn) -> Turn:
        """Takes a call out of a queue that is too long: the newcomer, unless another user has more calls
        waiting; then the last one of that. So a full queue stays open to those who ask for little."""
        longest = max((len(user.waiting), name) for name, user in self._waiting.items())
        own = self._users[newcomer.user]
        if len(own.waiting) >= longest[0]:
            refused = newcomer
        else:
            refused = next(reversed(self._users[longest[1]].waiting.values())).turn
        self.leave(refused.id, 0)
        return refused

    def served(self, id: str, tokens: int) -> None:
        """`tokens` of a completion so far; fewer than before change nothing."""
        call = self._calls.get(id)
        if call is None or not call.is_running or tokens <= call.told:
            return
        _charge(self._users[call.turn.user], call.turn, COMPLETION * (tokens - call.told))
        call.told = tokens

    def leave(self, id: str, tokens: int) -> bool:
        """Whether a place came free. One that waits leaves the queue; one that is not known is nothing."""
        self.served(id, tokens)
        call = self._calls.pop(id, None)
        if call is None:
            return False
        user = self._users[call.turn.user]
        if not call.is_running:
            self._unqueue(call, user)
            return False
        user.running -= 1
        self.running -= 1
        return True

    def counter(self, user: str) -> float:
        """As it would be if the user asked now."""
        known = self._users.get(user) or _User()
        return known.counter if known.waiting else max(known.counter, self._floor())

    def __len__(self) -> int:
        """How many users are remembered."""
        return len(self._users)

    def _user(self, name: str) -> _User:
        user = self._users.get(name)
        if user is None:
            self._forget()
            user = self._users[name] = _User()
        return user

    def _unqueue(self, call: _Call, user: _User) -> None:
        del user.waiting[call.turn.id]
        self.waiting -= 1
        if not user.waiting:
            del self._waiting[call.turn.user]
            self._last = user

    def _floor(self) -> float:
        return self._waiting[self._lowest()].counter if self._waiting else self._last.counter

    def _lowest(self) -> str:
        """Of those who wait; of equals, the first by name."""
        heap = self._heap
        while True:
            counter, name = heap[0]
            user = self._waiting.get(name)
            if user is not None and user.counter == counter:
                return name
            heappop(heap)
            if user is not None:
                heappush(heap, (user.counter, name))

    def _tidy(self) -> None:
        """Those who come and go leave entries behind."""
        if len(self._heap) > 2 * len(self._waiting) + FORGOTTEN_AT:
            self._heap = [(user.counter, name) for name, user in self._waiting.items()]
            heapify(self._heap)

    def _forget(self) -> None:
        """Drops the users without calls who would be lifted anyway."""
        if len(self._users) < self._forget_at:
            return
        floor = self._floor()
        self._users = {
            name: user
            for name, user in self._users.items()
            if user.waiting or user.running or user.counter >= floor
        }
        self._forget_at = max(FORGOTTEN_AT, 2 * len(self._users))


def _charge(user: _User, turn: Turn, cost: float) -> None:
    user.counter += cost / turn.weight


class Pace:
    """How often places came free lately, the last minute above all."""

    __slots__ = ("_at", "_began", "_count")

    def __init__(self) -> None:
        self._count = 0.0
        self._at = self._began = -math.inf

    def left(self, now: float) -> None:
        if self._began == -math.inf:
            self._began = now
        self._count = self._faded(now) + 1
        self._at = now

    def seconds(self, waiting: int, now: float) -> float | None:
        """Until so many have got a place; None when nobody can tell."""
        count = self._faded(now)
        if count < 0.01:
            return None
        seen = PACE * (1 - math.exp(-max(1.0, now - self._began) / PACE))
        return waiting * seen / count

    def _faded(self, now: float) -> float:
        return self._count * math.exp((self._at - now) / PACE) if self._count else 0.0
