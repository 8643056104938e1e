"""Finds out what model servers can do: one that is vLLM reports usage in every chunk when it is asked to."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import msgspec

from llmgateway.domain.catalog import Deadlines, Model, Target
from llmgateway.domain.errors import UpstreamError
from llmgateway.domain.ports import Upstream, UpstreamRequest

log = logging.getLogger(__name__)

PERIOD = 10.0  # seconds between two rounds; a round asks only those whose answer is missing or old
KEPT_SECONDS = 600.0  # how long an answer is believed: another server may take over an address
AT_ONCE = 8
SECONDS = 3.0
DEADLINES = Deadlines(pool=1, connect=1, send=1, first_byte=SECONDS, idle=1, total=SECONDS)
MAX_ANSWER = 1024 * 1024

Now = Callable[[], float]
_decode = msgspec.json.Decoder().decode


class Capabilities:
    """What is known of the servers by address. `applied` puts it into a catalogue's models."""

    def __init__(self, upstream: Upstream, now: Now) -> None:
        self._upstream = upstream
        self._now = now
        self._continuous: dict[str, bool] = {}
        self._asked_at: dict[str, float] = {}

    def applied(self, models: Iterable[Model]) -> list[Model]:
        return [self._with_known(model) for model in models]

    def _with_known(self, model: Model) -> Model:
        if not any(self._tells_more_than(target) for target in model.targets):
            return model
        targets = tuple(
            msgspec.structs.replace(target, continuous_usage=self._continuous[target.url])
            if self._tells_more_than(target)
            else target
            for target in model.targets
        )
        return msgspec.structs.replace(model, targets=targets)

    def _tells_more_than(self, target: Target) -> bool:
        return target.continuous_usage is None and target.url in self._continuous

    async def probe(self, models: Iterable[Model]) -> bool:
        """Asks every server that is not known, or not any more; whether something new came out."""
        due = {target.url: target for model in models for target in model.targets if self._is_due(target)}
        turns = asyncio.Semaphore(AT_ONCE)

        async def ask(target: Target) -> bool:
            async with turns:
                return await self._ask(target)

        return any(await asyncio.gather(*(ask(target) for target in due.values())))

    def _is_due(self, target: Target) -> bool:
        if target.continuous_usage is not None or not target.url:
            return False
        wait = KEPT_SECONDS if target.url in self._continuous else 0.0
        return self._now() >= self._asked_at.get(target.url, float("-inf")) + wait

    async def _ask(self, target: Target) -> bool:
        self._asked_at[target.url] = self._now()
        try:
            is_vllm = await self._is_vllm(target)
        except UpstreamError:
            return False  # it is asked again in the next round
        is_new = self._continuous.get(target.url, False) != is_vllm
        self._continuous[target.url] = is_vllm
        if is_new:
            fields = {"replica": target.replica, "continuous_usage": is_vllm}
            log.info("found out what a model server can do", extra={"fields": fields})
        return is_new

    async def _is_vllm(self, target: Target) -> bool:
        request = UpstreamRequest("GET", "/models", b"application/json", b"", "")
        reply = await self._upstream.send(target, request, DEADLINES)
        try:
            return reply.status == 200 and says_vllm(await reply.read(MAX_ANSWER))
        finally:
            reply.close()  # after that it is another's


def says_vllm(body: bytes) -> bool:
    """Whether a list of models is one that vLLM gives."""
    try:
        answer: Any = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    data = answer.get("data") if isinstance(answer, dict) else None
    models = data if isinstance(data, list) else []
    return any(isinstance(model, dict) and model.get("owned_by") == "vllm" for model in models)


async def keep_probing(
    capabilities: Capabilities, models: Callable[[], Iterable[Model]], found: Callable[[], None]
) -> NoReturn:
    """Rounds for ever, the first at once; `found` is called when something new came out."""
    while True:
        try:
            if await capabilities.probe(models()):
                found()
        except Exception:
            log.exception("probing the model servers failed")
        await asyncio.sleep(PERIOD)
