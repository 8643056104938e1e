"""An OpenAI stream on its way through: bytes in, the same bytes out, and what they say of usage kept on the
side."""

import re
from typing import Any

import msgspec
from msgspec import Struct

from llmgateway.domain.call import Tokens
from llmgateway.domain.errors import UpstreamError, UpstreamFailed, UpstreamRefused
from llmgateway.providers.openai_usage import ErrorText, error_from, listed, tokens_of, words_of_message
from llmgateway.wire.sse import DONE, KEEPALIVE, SOFT_KEEPALIVE, EventSplitter, EventTooLarge, data_of, events

FOLD_AT = 4096  # bytes of events that are kept before they are folded to their text
_TYPES = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "not_found_error": 404,
    "overloaded_error": 503,
}


class _Delta(Struct, forbid_unknown_fields=True):
    content: str | None = None
    role: str | None = None


class _Choice(Struct):
    delta: _Delta
    index: int = 0
    finish_reason: str | None = None


class _Chunk(Struct):
    """A chunk of plain chat, which nearly all chunks are: read in one pass."""

    choices: list[_Choice]


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_is_number = re.compile(r"[0-9]+").fullmatch
_holds_usage = re.compile(rb'"usage"\s*:\s*\{').search
_is_delta = re.compile(r"response\.(?!audio\.delta).+\.delta").fullmatch  # all text but sound
_holds_id = re.compile(rb"(?:^|[\r\n])id(?=[:\r\n])").search


class OpenAIStream:
    """Implements `domain.ports.Translation`.

    Most pieces hold nothing that matters to us, and three searches tell: only the others are parsed.
    """

    __slots__ = (
        "_begun", "_choices", "_finished", "_has_ended", "_has_ids", "_hides_usage", "_kept", "_kept_size",
        "_last_events", "_said_before", "_says_done", "_splitter", "_strips_usage", "_words", "error",
        "is_done", "said", "tokens",
    )  # fmt: skip

    def __init__(
        self, *, choices: int, says_done: bool, last_events: tuple[str, ...], hides_usage: bool,
        strips_usage: bool,
    ) -> None:  # fmt: skip
        self._choices = choices
        self._says_done = says_done
        self._last_events = last_events
        self._hides_usage = hides_usage
        self._strips_usage = strips_usage
        self._splitter = EventSplitter()
        self._kept: list[bytes] = []
        self._kept_size = 0
        self._words: list[str] = []
        self._said_before: list[str] = []
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._has_ended = self._has_ids = False
        self.said = 0
        self.tokens: Tokens | None = None
        self.error: UpstreamError | None = None
        self.is_done = False

    def feed(self, data: bytes) -> bytes:
        try:
            whole = self._splitter.feed(data)
        except EventTooLarge as error:
            raise UpstreamFailed(
                f"The model server's stream cannot be relayed: {error}.", reason="protocol"
            ) from None
        if not whole:
            return whole
        if b'"error"' in whole or b"[DONE]" in whole or (b'"usage"' in whole and _holds_usage(whole)):
            whole = self._inspect(whole)
        self._kept.append(whole)
        self._kept_size += len(whole)
        if self._kept_size > FOLD_AT:
            self._fold()
        if self.is_done and self.tokens is None:
            self._doubt()
        return whole

    def end(self) -> bytes:
        out = self.feed(b"\n\n") if self._splitter.rest else b""
        if self.is_done or self.error is not None:
            return out
        self._fold()
        if not self._is_whole():
            raise UpstreamFailed("The model server ended its stream early.", reason="cut")
        self.is_done = self._says_done
        return out

    def _is_whole(self) -> bool:
        if self._says_done:
            return len(self._finished) >= self._choices
        return self._has_ended or not self._last_events

    def _doubt(self) -> None:
        """A last word without usage: a server that was interrupted says it, too, with its answer half
        said."""
        self._fold()
        if self._begun - self._finished:
            self.is_done = False
            self.error = UpstreamFailed("The model server broke off its answer.", reason="cut")

    @property
    def last(self) -> bytes:
        return DONE if self._says_done else b""

    @property
    def pulse(self) -> bytes:
        """Once an event had an id, openai-python takes every blank line for an event, so the comment goes
        without."""
        self._fold()
        return SOFT_KEEPALIVE if self._has_ids else KEEPALIVE

    def text(self) -> str:
        self._fold()
        self._said_before = ["".join(self._said_before)]
        return self._said_before[0]

    # --- the events that matter ---

    def _inspect(self, whole: bytes) -> bytes:
        out = []
        for event in events(whole):
            if self.is_done or self.error is not None:
                break
            out.append(self._inspect_event(event))
        return b"".join(out)

    def _inspect_event(self, event: bytes) -> bytes:
        data = data_of(event)
        if data.strip() == b"[DONE]":
            self.is_done = self._says_done
            return b"" if self._says_done else event
        try:
            members = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        if not isinstance(members, dict):
            return event
        if members.get("error"):
            self.error = stream_error(error_from(members["error"]))
            return b""
        return self._note_usage(event, data, members)

    def _note_usage(self, event: bytes, data: bytes, members: dict[str, Any]) -> bytes:
        inner = members.get("response")  # the responses API wraps its last word
        usage = members.get("usage", inner.get("usage") if isinstance(inner, dict) else None)
        if usage is None:
            return event
        self.tokens = tokens_of(usage) or self.tokens
        if members.get("choices") == []:
            return b"" if self._hides_usage else event
        return without_usage(event, data) if self._strips_usage and "usage" in members else event

    def _fold(self) -> None:
        """Keeps the words of what has passed and lets go of the bytes."""
        for event in b"".join(self._kept).removesuffix(b"\n\n").split(b"\n\n"):
            try:
                for choice in _decode_chunk(event[6:]).choices:
                    if choice.delta.content:
                        self._say(choice.delta.content)
                    self._follow(choice.index, is_finished=choice.finish_reason is not None)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._fold_unusual(event)
        self._kept = []
        self._kept_size = 0
        self._said_before.append("".join(self._words))  # a word of its own takes twenty times its letters
        self._words = []

    def _fold_unusual(self, run: bytes) -> None:
        """Anything that is not plain chat: other line ends, tool calls, reasoning, completions, comments."""
        self._has_ids = self._has_ids or _holds_id(run) is not None
        for event in events(run):
            try:
                chunk = _decode(data_of(event))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(chunk, dict):
                self._note_words(chunk)

    def _note_words(self, chunk: dict[str, Any]) -> None:
        for choice in listed(chunk, "choices"):
            if isinstance(choice, dict):
                for words in words_of_message(choice.get("delta") or choice):
                    self._say(words)
                if isinstance(choice.get("index", 0), int):
                    self._follow(choice.get("index", 0), is_finished=bool(choice.get("finish_reason")))
        kind = chunk.get("type")
        if isinstance(kind, str) and _is_delta(kind) and isinstance(chunk.get("delta"), str):
            self._say(chunk["delta"])
        elif kind in self._last_events:
            self._has_ended = True

    def _follow(self, index: int, *, is_finished: bool) -> None:
        self._begun.add(index)
        if is_finished:
            self._finished.add(index)

    def _say(self, words: str) -> None:
        self._words.append(words)
        self.said += len(words)


def stream_error(error: ErrorText) -> UpstreamError:
    """An error event as the error that it would have been as an answer of its own."""
    is_number = error.code is not None and _is_number(error.code) is not None
    status = int(error.code or 0) if is_number else _TYPES.get(error.type or "", 502)
    message = error.message or "The model server reported an error."
    if status in (400, 404, 409, 413, 422, 429, 503):
        code = None if is_number else error.code
        return UpstreamRefused(message, status=status, param=error.param, code=code)
    return UpstreamFailed(message, reason="error_event")


def without_usage(event: bytes, data: bytes) -> bytes:
    """The event without its top-level `usage`, every other byte as it was."""
    value = bytes(_decode_members(data)["usage"])
    member = re.compile(rb'(,\s*)?"usage"\s*:\s*' + re.escape(value) + rb"(\s*,)?")
    kept = {name: raw for name, raw in _decode_members(data).items() if name != "usage"}
    for found in member.finditer(event):
        comma = b"," if found[1] and found[2] else b""
        shorter = event[: found.start()] + comma + event[found.end() :]
        try:
            if {name: bytes(raw) for name, raw in _decode_members(data_of(shorter)).items()} == {
                n: bytes(r) for n, r in kept.items()
            }:
                return shorter
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return b"data: " + msgspec.json.encode(kept) + b"\n\n"
