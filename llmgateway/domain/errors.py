"""Every way a call can be refused or fail, as one tree; `edge/errors.py` gives each its HTTP status.

GatewayError
├── NotAuthenticated            no valid key: one answer for every cause
├── NotAllowed                  a valid key that may not do this
│   └── ModelNotAllowed
├── NotFound
│   └── NoSuchModel
├── MethodNotAllowed
├── InvalidRequest              the request itself is wrong; `param` says where
│   ├── InvalidJson
│   ├── TooLarge
│   └── UnsupportedMedia
├── Conflict                    the thing exists already or has changed meanwhile
├── OverLimit                   a limit is used up for now
│   ├── TooManyTokens
│   └── BudgetSpent             ... and waiting does not help
├── Overloaded                  more at once than the model or the gateway takes
├── Unavailable                 a part of ours cannot do its work: 503, never 401
│   ├── StoreUnavailable
│   ├── LedgerUnavailable
│   └── ShuttingDown
├── UpstreamError               the model server failed
│   ├── UpstreamFailed          broken, unreachable, or an answer of the wrong kind
│   ├── UpstreamTimeout
│   └── UpstreamRefused         it answered with an error status that is the client's to see
└── ClientGone                  nobody is left to answer; status 499 stands in records only
"""

from collections.abc import Sequence
from typing import ClassVar

from llmgateway.domain.limits import Standing


class GatewayError(Exception):
    """`message` is shown to the client; `code` and `type` are stable; `retry_after` is in seconds;
    `should_retry` overrides what an SDK would do by the status alone."""

    code: str = "internal_error"
    type: ClassVar[str] = "server_error"
    should_retry: bool | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class NotAuthenticated(GatewayError):
    code = "invalid_api_key"
    type = "invalid_request_error"

    def __init__(
        self, message: str = "Missing or invalid API key. Send it as 'Authorization: Bearer <key>'."
    ) -> None:
        super().__init__(message)


class NotAllowed(GatewayError):
    code = "permission_denied"
    type = "permission_error"


class ModelNotAllowed(NotAllowed):
    code = "model_not_allowed"

    def __init__(self, model: str) -> None:
        super().__init__(f"This API key may not use the model '{shown(model)}'.", param="model")


class NotFound(GatewayError):
    code = "not_found"
    type = "invalid_request_error"


class NoSuchModel(NotFound):
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"The model '{shown(model)}' does not exist or you do not have access to it.", param="model"
        )


class MethodNotAllowed(GatewayError):
    code = "method_not_allowed"
    type = "invalid_request_error"


class InvalidRequest(GatewayError):
    code = "invalid_value"
    type = "invalid_request_error"


class InvalidJson(InvalidRequest):
    code = "invalid_json"


class TooLarge(InvalidRequest):
    code = "request_too_large"


class UnsupportedMedia(InvalidRequest):
    code = "unsupported_media_type"


class Conflict(GatewayError):
    code = "conflict"
    type = "invalid_request_error"
    should_retry: bool | None = False


class OverLimit(GatewayError):
    """`standings` are all limits of the call, the one that refused it in front."""

    code = "rate_limit_exceeded"
    type: ClassVar[str] = "requests"

    def __init__(
        self, message: str, *, standings: Sequence[Standing] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.standings = standings


class TooManyTokens(OverLimit):
    type = "tokens"


class BudgetSpent(OverLimit):
    code = "insufficient_quota"
    type = "insufficient_quota"
    should_retry: bool | None = False


class Overloaded(GatewayError):
    code = "overloaded"


class Unavailable(GatewayError):
    code = "unavailable"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class LedgerUnavailable(Unavailable):
    code = "ledger_unavailable"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class UpstreamError(GatewayError):
    code = "upstream_error"


class UpstreamFailed(UpstreamError):
    """`reason` is a short stable word for attempts and metrics: connect, reset, protocol, status_502, ..."""

    def __init__(
        self, message: str, *, reason: str, code: str | None = None, retry_after: float | None = None,
        should_retry: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, code=code, retry_after=retry_after)
        self.reason = reason
        self.should_retry = should_retry


class UpstreamTimeout(UpstreamError):
    """`phase` is the deadline that passed: pool, connect, send, first_byte, idle, total."""

    code = "upstream_timeout"

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(
            f"The model server did not answer in time ({phase.replace('_', ' ')}: {seconds:g} s)."
        )
        self.phase = phase


class UpstreamRefused(UpstreamError):
    """The upstream's own refusal, written anew in our shape; `status` is what the client gets."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.status = status


class ClientGone(GatewayError):
    code = "client_closed_request"


def shown(name: str, most: int = 100) -> str:
    """A client's own words, made fit to stand in a message: printable ASCII, not longer than `most`."""
    clean = "".join(c if " " <= c <= "~" else "?" for c in name[: most + 1])
    return clean if len(clean) <= most else clean[:most] + "..."
