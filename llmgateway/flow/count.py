"""Token counts from those who know: a model server's `/extras/tokenize/count`, else its `/tokenize`.

llama.cpp's count takes one string only and answers a chat with an error; vLLM's `/tokenize` takes chats and
puts the template in. Where neither can count a chat, its texts are counted one after the other as one string.
"""

from typing import Any

import msgspec

from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import UpstreamFailed
from llmgateway.domain.ports import Upstream, UpstreamRequest

SECONDS = 2.0
DEADLINES = Deadlines(pool=0.5, connect=0.5, send=SECONDS, first_byte=SECONDS, idle=SECONDS, total=SECONDS)
MAX_ANSWER = 8 * 1024 * 1024  # vLLM lists every token

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Count:
    """Asks over the same client as the calls do. Raises `UpstreamError` where no server could tell."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def text(self, target: Target, text: str) -> int:
        try:
            return await self._ask(target, self._counter(target), {"model": target.model, "input": text})
        except UpstreamFailed:
            return await self._ask(
                target, self._beside(target, "/tokenize"), {"model": target.model, "prompt": text}
            )

    async def chat(self, target: Target, request: dict[str, Any]) -> int:
        """`request` is a chat request, or a completion's with `prompt`."""
        request = {**request, "model": target.model}
        messages = request.get("messages")
        if not isinstance(messages, list):
            return await self.text(target, text_of_prompt(request.get("prompt", request.get("input", ""))))
        try:
            chat: dict[str, Any] = {
                name: request[name]
                for name in ("model", "messages", "tools", "chat_template_kwargs")
                if name in request
            }
            return await self._ask(
                target, self._beside(target, "/tokenize"), {**chat, "add_generation_prompt": True}
            )
        except UpstreamFailed:
            return await self.text(target, text_of_messages(messages))

    async def _ask(self, target: Target, url: str, body: dict[str, Any]) -> int:
        request = UpstreamRequest("POST", url, b"application/json", _encode(body), "")
        reply = await self._upstream.send(target, request, DEADLINES)
        try:
            status, answer = reply.status, await reply.read(MAX_ANSWER)
        finally:
            reply.close()  # from here on it is the next call's
        if status != 200:
            raise UpstreamFailed(f"The tokeniser answered with status {status}.", reason="tokenizer")
        try:
            count = _decode(answer)["count"]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            count = None
        if type(count) is not int or count < 0:
            raise UpstreamFailed("The tokeniser gave no count.", reason="tokenizer")
        return count

    def _counter(self, target: Target) -> str:
        return target.tokenizer or self._beside(target, "/extras/tokenize/count")

    @staticmethod
    def _beside(target: Target, path: str) -> str:
        return target.url.removesuffix("/v1") + path


def text_of_prompt(prompt: object) -> str:
    """A completion's prompt or an embedding's input as one string."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list):
        return "\n".join(part for part in prompt if isinstance(part, str))
    return ""


def text_of_messages(messages: list[Any]) -> str:
    """All texts of a chat, one line each; pictures and sounds are not text."""
    lines = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            lines.append(content)
        elif isinstance(content, list):
            lines += [
                part["text"]
                for part in content
                if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
    return "\n".join(lines)
