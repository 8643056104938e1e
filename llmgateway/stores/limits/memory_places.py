"""The places of a gateway that is one process, and what is said to those who get none."""

import asyncio
import math
from collections.abc import Mapping

from llmgateway.domain.admission import Queue, Turn
from llmgateway.domain.errors import Overloaded, shown
from llmgateway.domain.fair import Line, Pace
from llmgateway.domain.ports import Clock, SystemClock

SOONEST, LATEST = 1.0, 60.0  # seconds; what a refused caller is told to wait

Granted = asyncio.Future[None]


class _Model:
    __slots__ = ("line", "most", "pace")

    def __init__(self) -> None:
        self.line = Line()
        self.pace = Pace()
        self.most = 0


class MemoryPlaces:
    """Nothing here waits for anything but a place, so no step of it can be cancelled half-way."""

    name = "memory"

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._models: dict[str, _Model] = {}
        self._calls: dict[str, _Model] = {}
        self._granted: dict[str, Granted] = {}  # of those who wait

    def is_healthy(self) -> bool:
        return True

    async def take(self, turn: Turn) -> None:
        if self._is_in(turn):
            return
        granted: Granted = asyncio.get_running_loop().create_future()
        self._granted[turn.id] = granted
        try:
            await granted
        except BaseException:
            self.leave(turn.id, 0)
            raise

    def join(self, turn: Turn, granted: Granted) -> None:
        """As `take`, for one who waits for `granted` already."""
        self._granted[turn.id] = granted
        try:
            self._is_in(turn)
        except Overloaded as refusal:
            _refuse(self._granted.pop(turn.id), refusal)

    def hold(self, turn: Turn, told: int) -> None:
        """For one who has a place already."""
        model = self._model(turn)
        model.line.hold(turn, told)
        self._calls[turn.id] = model

    def served(self, id: str, tokens: int) -> None:
        model = self._calls.get(id)
        if model is not None:
            model.line.served(id, tokens)

    def leave(self, id: str, tokens: int) -> None:
        model = self._calls.pop(id, None)
        self._granted.pop(id, None)
        if model is not None and model.line.leave(id, tokens):
            model.pace.left(self._clock.monotonic())
            self._give(model)

    def resize(self, most: Mapping[str, int]) -> None:
        for name, model in self._models.items():
            model.most = most.get(name, model.most)
            self._give(model)

    def queue(self, model: str) -> Queue:
        known = self._models.get(model)
        if known is None:
            return Queue()
        waiting = known.line.waiting
        return Queue(waiting, known.pace.seconds(waiting, self._clock.monotonic()))

    async def recover(self, worker: str) -> None:
        """A dead worker's places died with it."""

    def _model(self, turn: Turn) -> _Model:
        model = self._models.get(turn.model)
        if model is None:
            model = self._models[turn.model] = _Model()
        model.most = turn.most
        return model

    def _is_in(self, turn: Turn) -> bool:
        """Whether it has a place; else it waits."""
        model = self._model(turn)
        line = model.line
        line.enter(turn)
        self._calls[turn.id] = model
        self._give(model)
        if line.runs(turn.id):
            return True
        if line.waiting > turn.waiting:
            self._refuse_one(turn, line)
        return False

    def _give(self, model: _Model) -> None:
        while (turn := model.line.next(model.most)) is not None:
            granted = self._granted.pop(turn.id, None)
            if granted is not None and not granted.done():  # else its caller is being cancelled, and leaves
                granted.set_result(None)

    def _refuse_one(self, newcomer: Turn, line: Line) -> None:
        refused = line.refuse(newcomer)
        del self._calls[refused.id]
        refusal = overloaded(newcomer.model, self.queue(newcomer.model))
        if refused.id == newcomer.id:
            raise refusal
        _refuse(self._granted.pop(refused.id), refusal)


def _refuse(granted: Granted, refusal: Overloaded) -> None:
    if not granted.done():
        granted.set_exception(refusal)


def overloaded(model: str, queue: Queue) -> Overloaded:
    """The refusal of a call for which there is no room in the queue."""
    message = f"The model '{shown(model)}' is busy and its queue is full: {queue.waiting} calls wait"
    if queue.seconds is None:
        return Overloaded(f"{message}. Please try again soon.", retry_after=SOONEST)
    seconds = min(LATEST, max(SOONEST, math.ceil(queue.seconds)))
    return Overloaded(f"{message}, the last of them for about {duration(queue.seconds)} more. "
                      "Please try again later.", retry_after=seconds)  # fmt: skip


def duration(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 100 else f"{math.ceil(seconds / 60)} minutes"
