"""Calls at the limiter of many workers: those that wait for an answer, and those that were let in."""

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from llmgateway.domain.limits import Claim
from llmgateway.stores.limits.grants import Counted
from llmgateway.stores.limits.limiter_turn import Change
from llmgateway.stores.limits.windows import Answer, Begin


class Open(Struct):
    """A call that has been let in. `change` is its `hold`, when it was let in without Redis, or perhaps with
    it (`is_uncertain`); `is_counted` is false when the backlog was full."""

    claim: Claim
    counted: Counted
    change: Change | None = None
    is_counted: bool = True
    is_uncertain: bool = False


class Asked:
    """A claim that waits. `is_uncertain`: it was sent, and nobody knows whether it was taken."""

    __slots__ = ("answer", "begins", "claim", "is_uncertain")

    def __init__(self, claim: Claim, begins: Sequence[Begin]) -> None:
        self.claim = claim
        self.begins = begins
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self.is_uncertain = False
