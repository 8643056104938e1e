"""What OpenAI-shaped answers say of usage, of errors, and in words. Nothing of a stranger's is believed
unchecked."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from llmgateway.domain.call import NO_TOKENS, Tokens

MOST = 10**9  # tokens of one answer that can be believed


Figure = Annotated[int, Meta(ge=0, le=MOST)]


class _PromptDetails(Struct):
    cached_tokens: Figure | None = None


class _CompletionDetails(Struct):
    reasoning_tokens: Figure | None = None


class _Usage(Struct):
    prompt_tokens: Figure
    completion_tokens: Figure = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class _WithUsage(Struct):
    usage: _Usage


_decode = msgspec.json.Decoder().decode
_decode_text = msgspec.json.Decoder(str).decode
_said = re.compile(
    rb'"(?:reasoning_content|reasoning|content|refusal|text|arguments)"\s*:\s*'
    rb'"([^"\\]*(?:\\(?:[^u]|u[0-9a-fA-F]{4})[^"\\]*)*)',
    re.DOTALL,
).finditer
_decode_usage = msgspec.json.Decoder(_WithUsage).decode


class ErrorText(Struct, frozen=True):
    """An error as far as it could be read."""

    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | None = None


def tokens_of(usage: object) -> Tokens | None:
    """A usage object (chat's names or those of the responses API) as tokens; None where a figure cannot be
    true."""
    if not isinstance(usage, dict):
        return None
    prompt = _figure(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = _figure(usage.get("completion_tokens", usage.get("output_tokens", 0)))
    if prompt is None or completion is None or not prompt + completion:  # no answer is made of nothing
        return None
    cached = _detail(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    reasoning = _detail(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    return Tokens(prompt, completion, min(cached, prompt), min(reasoning, completion))


def _figure(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST else None


def _detail(usage: dict[str, Any], names: tuple[str, str], field: str) -> int:
    for name in names:
        details = usage.get(name)
        if isinstance(details, dict):
            return _figure(details.get(field)) or 0
    return 0


def error_of(body: bytes) -> ErrorText:
    """OpenAI's shape, vLLM's older one (`object: error` at the top), FastAPI's `detail`; anything else is no
    text."""
    found = _members(body)
    return error_from(found.get("error", found))


def error_from(error: object) -> ErrorText:
    if isinstance(error, str):
        return ErrorText(message=error[:2000])
    if not isinstance(error, dict):
        return ErrorText()
    message = error.get("message", error.get("detail"))
    return ErrorText(
        message=message[:2000] if isinstance(message, str) else None,
        type=_word(error.get("type")),
        param=_word(error.get("param")),
        code=_word(error.get("code")),
    )


def _word(value: object) -> str | None:
    """vLLM's codes are numbers; SDKs want strings."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:200]


class OpenAIAnswer:
    """Implements `domain.ports.Evidence` for a whole answer: chat, completions, embeddings, responses."""

    __slots__ = ("_body", "tokens")

    def __init__(self, body: bytes) -> None:
        self._body = body
        try:
            usage = _decode_usage(body).usage  # the usual case, in one pass that builds nothing else
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.tokens = tokens_of(_members(body).get("usage"))
            return
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        cached = (prompt.cached_tokens or 0) if prompt else 0
        reasoning = (completion.reasoning_tokens or 0) if completion else 0
        tokens = Tokens(
            usage.prompt_tokens,
            usage.completion_tokens,
            min(cached, usage.prompt_tokens),
            min(reasoning, usage.completion_tokens),
        )
        self.tokens = None if tokens == NO_TOKENS else tokens

    @property
    def said(self) -> int:
        return len(self.text())

    def text(self) -> str:
        members = _members(self._body)
        return "".join(_words(members) if members else _words_of_beginning(self._body))

    @property
    def pulse(self) -> bytes:
        return b""  # nothing belongs between the pieces of one JSON object


def _members(body: bytes) -> dict[str, Any]:
    """The top level of an answer; empty where it is no JSON object."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(answer: dict[str, Any]) -> Iterator[str]:
    for choice in listed(answer, "choices"):
        if isinstance(choice, dict):
            yield from words_of_message(choice.get("message") or choice)
    for item in listed(answer, "output"):
        if isinstance(item, dict):
            for part in listed(item, "content"):
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    yield part["text"]


def _words_of_beginning(body: bytes) -> Iterator[str]:
    """Of an answer of which only the beginning is known."""
    for said in _said(body):
        text = said[1].decode("utf-8", "ignore")  # its end may be half a letter
        try:
            yield _decode_text(f'"{text}"')
        except msgspec.DecodeError:  # half a pair of surrogates
            yield text


def listed(members: dict[str, Any], name: str) -> list[Any]:
    """A member that is a list; anything else is none."""
    value = members.get(name)
    return value if isinstance(value, list) else []


def words_of_message(message: object) -> Iterator[str]:
    """A message or a delta: its text, its reasoning, its refusal, and what its tool calls say."""
    if not isinstance(message, dict):
        return
    for name in ("reasoning_content", "reasoning", "content", "refusal", "text"):
        if isinstance(message.get(name), str):
            yield message[name]
    for call in listed(message, "tool_calls"):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (
                function[name] for name in ("name", "arguments") if isinstance(function.get(name), str)
            )
