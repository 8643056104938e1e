"""The one table from errors to HTTP, and OpenAI's error shape."""

import math

import msgspec

from llmgateway.domain.errors import (
    ClientGone,
    Conflict,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    OverLimit,
    Overloaded,
    TooLarge,
    Unavailable,
    UnsupportedMedia,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimeout,
)

STATUS: dict[type[GatewayError], int] = {
    GatewayError: 500,
    NotAuthenticated: 401,
    NotAllowed: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    InvalidRequest: 400,
    TooLarge: 413,
    UnsupportedMedia: 415,
    Conflict: 409,
    OverLimit: 429,
    Overloaded: 503,
    Unavailable: 503,
    UpstreamError: 502,
    UpstreamTimeout: 504,
    ClientGone: 499,
}

_TYPES_BY_STATUS = {
    400: "invalid_request_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "requests",
}


def status_of(error: GatewayError) -> int:
    if isinstance(error, UpstreamRefused):
        return error.status
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def body_of(error: GatewayError) -> bytes:
    kind = (
        _TYPES_BY_STATUS.get(error.status, error.type) if isinstance(error, UpstreamRefused) else error.type
    )
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    )


def headers_of(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """`retry-after` in whole seconds, `x-should-retry` where the status alone would mislead an SDK."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if isinstance(error, NotAuthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, TooLarge):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    return headers
