"""What a worker says to `lua/places.lua` in one batch, and what it is told."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from llmgateway.domain.admission import Queue, Turn

PREFIX = "{lgw}:places:"
WORKERS, HEARD, UNTOLD, MODELS = f"{PREFIX}workers", f"{PREFIX}heard", f"{PREFIX}untold", f"{PREFIX}models"
CHANNEL = "{lgw}:grants:"
OF_A_MODEL = ("calls", "counters", "waiting", "line", "lengths", "meta")

Line = tuple[str, str, float, int, int]
"""A call: id, user, weight, prompt, and how many may wait (of those that ask) or the tokens served so far."""


def line(turn: Turn, last: int) -> Line:
    """A user's name ends at a zero byte in the keys."""
    return turn.id, turn.user.replace("\0", " "), turn.weight, turn.prompt, last


class OfModel(Struct, kw_only=True):
    """News of one model. `takes` ask for a place, `leaves` give it back, `served` goes on; `waits` may have
    missed what became of them. In a whole batch `held` and `takes` are all that the worker has."""

    name: str
    most: int | None = None
    takes: list[Line] = []
    leaves: list[tuple[str, int]] = []
    served: list[tuple[str, int]] = []
    waits: list[str] = []
    held: list[Line] = []


class Ask(Struct, kw_only=True):
    """`whole` puts right what Redis thinks that the worker has. `looks`: for workers unheard of for `lease`;
    `recovers`: in the name of a dead worker, for the last time. Times are milliseconds."""

    worker: str
    number: int
    models: Sequence[OfModel]
    lease: int
    patience: int
    channel: str = CHANNEL
    whole: bool = False
    looks: bool = False
    recovers: bool = False


class Told(Struct, array_like=True, frozen=True):
    """`live` is how many workers there are; `queues` are those of the models asked about, in their order: how
    many wait, and the seconds until all have a place, -1 when nobody knows."""

    number: int
    status: str
    live: int = 1
    queues: list[tuple[int, float]] = []
    granted: list[str] = []
    refused: list[str] = []
    dead: list[str] = []


News = tuple[list[str], list[str]]
"""Granted and refused calls: what comes through a worker's channel."""

_encoder = msgspec.msgpack.Encoder()
_told = msgspec.msgpack.Decoder(Told)
_news = msgspec.msgpack.Decoder(News)


def keys_of(models: Iterable[str]) -> list[str]:
    return [WORKERS, HEARD, UNTOLD, MODELS,
            *(f"{PREFIX}{part}:{model}" for model in models for part in OF_A_MODEL)]  # fmt: skip


def packed(ask: Ask) -> bytes:
    return _encoder.encode(ask)


def told(reply: object) -> Told | None:
    """None when the reply is no such thing."""
    try:
        return _told.decode(reply) if isinstance(reply, bytes) else None
    except msgspec.DecodeError:
        return None


def news(message: bytes) -> News:
    try:
        heard: News = _news.decode(message)
    except msgspec.DecodeError:
        return [], []
    return heard


def queue_of(waiting: int, seconds: float) -> Queue:
    return Queue(waiting, seconds if seconds >= 0 else None)
