"""A call: what a program asked, and the one ledger record that is left of it."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

Outcome = Literal["completed", "client_gone", "upstream_error", "timeout", "shutdown", "recovered", "cached"]
UsageSource = Literal["upstream", "counted", "estimated", "none"]


class Ask(Struct, frozen=True):
    """What a program asked for, read and checked once.

    `body` holds the client's own bytes, which go upstream when nothing has to change. `model_at` is where the
    model's name stands in a form; None for JSON. `max_output` is None where the request names no maximum. Of
    each of its `prompts` there are as many answers as `choices`.
    """

    endpoint: str
    model: str
    stream: bool
    body: bytes
    content_type: bytes = b"application/json"
    model_at: tuple[int, int] | None = None
    wants_usage: bool = False
    wants_continuous_usage: bool = False
    max_output: int | None = None
    choices: int = 1
    prompts: int = 1


class Tokens(Struct, frozen=True):
    """`cached` is part of `prompt`, `reasoning` is part of `completion`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


NO_TOKENS = Tokens()


class ClientInfo(Struct, frozen=True):
    """What the caller's SDK says of itself: name and version, and how many times it has tried before."""

    sdk: str | None = None
    version: str | None = None
    retry: int = 0


class TargetRef(Struct, frozen=True):
    """Which upstream served: `replica` is host:port of its address."""

    provider: str
    model: str
    replica: str


class Attempt(Struct, frozen=True):
    """One try at one target: the status it gave (0 where none came), the reason it ended for, how long it
    took."""

    target: str
    status: int
    reason: str
    ms: int


class Record(Struct, kw_only=True, rename={"id": "_id"}):
    """The ledger's line of one accepted request: opened before the first upstream byte, closed once.

    The one value that is not frozen: `flow/account.py` owns it while the call lives. Integers only. `cost` is
    in micro-units, at the price frozen in `price_id` at acceptance.
    """

    id: str
    request_id: str
    at: datetime
    key_id: str
    user: str
    endpoint: str
    model: str
    price_id: str
    project: str | None = None
    ended_at: datetime | None = None
    duration_ms: int = 0
    ttft_ms: int | None = None
    overhead_us: int = 0
    stream: bool = False
    client: ClientInfo = ClientInfo()
    target: TargetRef | None = None
    attempts: list[Attempt] = []
    outcome: Outcome | None = None
    status: int = 0
    tokens: Tokens = NO_TOKENS
    usage_source: UsageSource = "none"
    cost: int = 0
