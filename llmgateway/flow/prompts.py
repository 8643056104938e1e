"""How many tokens a prompt has, before it goes upstream: what a limit on tokens reserves."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

import msgspec

from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Target
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.errors import UpstreamError
from llmgateway.domain.estimate import tokens_in
from llmgateway.flow.count import Count

SECONDS = 0.5  # that a call waits for a tokeniser before it is estimated
AWAY_SECONDS = 10.0  # for which a tokeniser that was too slow, or could not tell, is not asked
MOST_KNOWN = 10_000  # prompts; SDKs try again with the same one, and applications begin with the same one


class Prompts:
    """Asks the tokeniser of the target that the call will go to. Never raises: what cannot be counted in time
    is estimated. `now` is a monotonic clock."""

    def __init__(self, count: Count, now: Callable[[], float]) -> None:
        self._count = count
        self._now = now
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._silent_until: dict[str, float] = {}

    async def __call__(self, ask: Ask, target: Target) -> int:
        if ask.model_at is not None or not ENDPOINTS[ask.endpoint].has_tokens:
            return 0
        if not self._can_be_asked(target):
            return tokens_in(len(ask.body))
        prompt = sha256(b"%b\n%b" % (target.model.encode(), ask.body)).digest()
        known = self._known.get(prompt)
        if known is not None:
            return known
        counted = await self._counted(ask, target)
        if counted is None:
            return tokens_in(len(ask.body))
        self._known[prompt] = counted
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return counted

    def _can_be_asked(self, target: Target) -> bool:
        if target.tokenizer is None and target.url:  # told not to ask; echo counts itself
            return False
        return self._silent_until.get(target.url, 0.0) <= self._now()

    async def _counted(self, ask: Ask, target: Target) -> int | None:
        try:
            async with asyncio.timeout(SECONDS):
                return await self._count.chat(target, msgspec.json.decode(ask.body))
        except (UpstreamError, TimeoutError):
            self._silent_until[target.url] = self._now() + AWAY_SECONDS
        except msgspec.DecodeError:
            pass
        return None
