"""OpenAI's dialect, which vLLM, SGLang, llama.cpp and most others speak: the bytes pass as they are.

Only what the gateway asked for itself is taken out again: the chunk that holds nothing but usage, and the
`usage` members that `continuous_usage_stats` adds.
"""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Target
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.errors import UpstreamError, UpstreamFailed, UpstreamRefused
from llmgateway.domain.ports import Evidence, Translation, UpstreamRequest
from llmgateway.providers.openai_stream import OpenAIStream
from llmgateway.providers.openai_usage import OpenAIAnswer, error_of
from llmgateway.wire import jsonhead

KEPT: Mapping[int, str] = {  # the caller's to see; with these codes where the server has none of its own
    400: "invalid_value", 404: "not_found", 409: "conflict", 413: "request_too_large", 422: "invalid_value",
    429: "rate_limit_exceeded",
}  # fmt: skip
CODES = {408: 504, 502: 502, 503: 503, 504: 504, 529: 503}
MAX_RETRY_AFTER = 60.0

_USAGE = {"include_usage": True}
_EVERY_USAGE = {"include_usage": True, "continuous_usage_stats": True}


class OpenAI:
    """Implements `domain.ports.Dialect`."""

    def request(
        self, ask: Ask, target: Target, request_id: str, *, asks_usage: bool = True
    ) -> UpstreamRequest:
        path, body = ask.endpoint.removeprefix("/v1"), _body(ask, target, asks_usage=asks_usage)
        return UpstreamRequest("POST", path, ask.content_type, body, request_id)

    def refuses_usage(self, status: int, body: bytes) -> bool:
        return status in (400, 422) and (b"stream_options" in body or b"continuous_usage_stats" in body)

    def stream(self, ask: Ask, target: Target) -> Translation:
        endpoint = ENDPOINTS[ask.endpoint]
        return OpenAIStream(
            choices=ask.choices,
            says_done=endpoint.says_done,
            last_events=endpoint.last_events,
            hides_usage=endpoint.counts_stream and not ask.wants_usage,
            strips_usage=bool(target.continuous_usage) and not ask.wants_continuous_usage,
        )

    def answer(self, body: bytes) -> Evidence:
        return OpenAIAnswer(body)

    def refusal(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamError:
        retry_after = _retry_after(headers)
        if status in KEPT:
            error = error_of(body)
            return UpstreamRefused(
                error.message or f"The model server refused the request with status {status}.",
                status=status,
                param=error.param,
                code=error.code if error.code and not error.code.isdigit() else KEPT[status],
                retry_after=retry_after,
            )
        if status in (401, 403):
            return UpstreamFailed(
                "The model server did not accept the gateway's credential.",
                reason=f"status_{status}",
                code="upstream_auth",
                should_retry=False,  # the next try has the same credential
            )
        if status in CODES:
            code = {503: "overloaded", 504: "upstream_timeout"}.get(CODES[status], "upstream_error")
            return UpstreamRefused(
                f"The model server answered with status {status}.",
                status=CODES[status],
                code=code,
                retry_after=retry_after,
            )
        return UpstreamFailed(
            f"The model server answered with status {status}.",
            reason=f"status_{status}",
            retry_after=retry_after,
        )


def _body(ask: Ask, target: Target, *, asks_usage: bool) -> bytes:
    if ask.model_at is not None:
        start, end = ask.model_at
        return ask.body[:start] + target.model.encode() + ask.body[end:]
    changes: dict[str, Any] = {}
    if target.model != ask.model:
        changes["model"] = target.model
    if (
        ask.stream
        and asks_usage
        and ENDPOINTS[ask.endpoint].counts_stream
        and (not ask.wants_usage or target.continuous_usage)
    ):
        changes["stream_options"] = _EVERY_USAGE if target.continuous_usage else _USAGE
    return jsonhead.change(ask.body, changes) if changes else ask.body


def _retry_after(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds, clamped: what an SDK would not wait for is not passed on."""
    value = headers.get(b"retry-after", b"").decode("latin-1").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date, then = headers.get(b"date", b"").decode("latin-1"), parsedate_to_datetime(value)
            seconds = (then - parsedate_to_datetime(date)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 1.0), MAX_RETRY_AFTER) if seconds == seconds else None
