"""Token counts from those who know: a model server's `/extras/tokenize/count`, else its `/tokenize`.

Three dialects are spoken. llama_cpp.server counts one string and answers a chat with an error; vLLM's
`/tokenize` takes chats and puts the template in; llama-server writes a chat out with its template at
`/apply-template`, and lists a string's tokens. Where none can count a chat, its texts are counted one after
the other as one string.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import UpstreamError, UpstreamFailed, UpstreamTimeout
from llmgateway.domain.ports import Upstream, UpstreamRequest

SECONDS = 2.0
DEADLINES = Deadlines(pool=0.5, connect=0.5, send=SECONDS, first_byte=SECONDS, idle=SECONDS, total=SECONDS)
MAX_ANSWER = 8 * 1024 * 1024  # vLLM lists every token
AWAY_SECONDS = 10.0  # for which a server that did not answer is not asked
FOREIGN_SECONDS = 600.0  # for which what a server does not know is not asked again
MOST_LEFT_ALONE = 4096
AWAY = frozenset({"connect", "reset", "tls"})
FOREIGN = frozenset({404, 405, 501})
_CHAT_FIELDS = ("messages", "tools", "chat_template_kwargs")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
Read = TypeVar("Read")


class Count:
    """Asks over the same client as the calls do. Raises `UpstreamError` where no server could tell, at once
    where it is known that none can. `now` is a monotonic clock."""

    def __init__(self, upstream: Upstream, now: Callable[[], float]) -> None:
        self._upstream = upstream
        self._now = now
        self._left_alone: dict[tuple[str, str], tuple[float, bool]] = {}  # until when, and is it away

    async def text(self, target: Target, text: str) -> int:
        url = target.tokenizer or _beside(target, "/extras/tokenize/count")
        try:
            return await self._ask(target, url, "text", {"model": target.model, "input": text}, _count_in)
        except UpstreamFailed:
            both = {"model": target.model, "prompt": text, "content": text}
            return await self._ask(target, _beside(target, "/tokenize"), "text", both, _count_in)

    async def chat(self, target: Target, request: dict[str, Any]) -> int:
        """`request` is a chat request, a completion's with `prompt`, or one with `input`."""
        messages = request.get("messages")
        if not isinstance(messages, list):
            return await self._prompt(target, request)
        chat = {"model": target.model} | {name: request[name] for name in _CHAT_FIELDS if name in request}
        try:
            body = {**chat, "add_generation_prompt": True}
            return await self._ask(target, _beside(target, "/tokenize"), "chat", body, _count_in)
        except UpstreamFailed:
            pass
        try:
            written = await self._ask(target, _beside(target, "/apply-template"), "chat", chat, _prompt_in)
        except UpstreamFailed:
            written = text_of_messages(messages)
        return await self.text(target, written)

    async def _prompt(self, target: Target, request: dict[str, Any]) -> int:
        prompt = request.get("prompt", request.get("input", ""))
        instructions = request.get("instructions")
        text = "\n".join(filter(None, (text_of_prompt(instructions), text_of_prompt(prompt))))
        tokens = tokens_among(prompt)
        return tokens if tokens and not text else tokens + await self.text(target, text)

    async def _ask(
        self,
        target: Target,
        url: str,
        what: str,
        body: dict[str, Any],
        read: Callable[[dict[str, Any]], Read | None],
    ) -> Read:
        self._refuse_if_left_alone(url, what)
        try:
            status, answer = await self._exchange(target, url, body)
        except UpstreamError as error:
            if isinstance(error, UpstreamTimeout) or getattr(error, "reason", "") in AWAY:
                self._leave_alone(url, what, is_away=True)
            raise
        found = read(answer) if status == 200 else None
        if found is not None:
            return found
        if status == 200 or status in FOREIGN:
            self._leave_alone(url, what, is_away=False)
        raise UpstreamFailed(f"The tokeniser gave no count; its status was {status}.", reason="tokenizer")

    async def _exchange(self, target: Target, url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer, empty where it is no object."""
        request = UpstreamRequest("POST", url, b"application/json", _encode(body), "")
        reply = await self._upstream.send(target, request, DEADLINES)
        try:
            status, data = reply.status, await reply.read(MAX_ANSWER)
        finally:
            reply.close()  # from here on it is the next call's
        try:
            answer = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = None
        return status, answer if isinstance(answer, dict) else {}

    def _leave_alone(self, url: str, what: str, *, is_away: bool) -> None:
        if len(self._left_alone) >= MOST_LEFT_ALONE:
            self._left_alone.clear()
        self._left_alone[url, what] = (self._now() + (AWAY_SECONDS if is_away else FOREIGN_SECONDS), is_away)

    def _refuse_if_left_alone(self, url: str, what: str) -> None:
        until, is_away = self._left_alone.get((url, what), (0.0, False))
        if until > self._now():
            if is_away:
                raise UpstreamTimeout("tokenizer", SECONDS)
            raise UpstreamFailed("The tokeniser does not know this.", reason="tokenizer")


def _beside(target: Target, path: str) -> str:
    return target.url.removesuffix("/v1") + path


def _count_in(answer: dict[str, Any]) -> int | None:
    count, tokens = answer.get("count"), answer.get("tokens")
    if count is None and isinstance(tokens, list):
        return len(tokens)
    return count if type(count) is int and count >= 0 else None


def _prompt_in(answer: dict[str, Any]) -> str | None:
    prompt = answer.get("prompt")
    return prompt if isinstance(prompt, str) else None


def text_of_prompt(prompt: object) -> str:
    """A completion's prompt, an embedding's or a response's input as one string."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list):
        texts = (part if isinstance(part, str) else text_of_messages([part]) for part in prompt)
        return "\n".join(filter(None, texts))
    return ""


def tokens_among(prompt: object) -> int:
    """What was tokenised before it came: one list of numbers, or several."""
    if not isinstance(prompt, list):
        return 0
    return sum(tokens_among(part) if isinstance(part, list) else type(part) is int for part in prompt)


def text_of_messages(messages: list[Any]) -> str:
    """All texts of a chat, one line each; pictures and sounds are not text."""
    lines = []
    for message in messages:
        content = message.get("content", message.get("output")) if isinstance(message, dict) else None
        if isinstance(content, str):
            lines.append(content)
        elif isinstance(content, list):
            lines += [
                part["text"]
                for part in content
                if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
    return "\n".join(lines)
