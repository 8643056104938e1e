"""The W3C's trace context: which trace a call belongs to, as a header pair in and as header lines out."""

import re
from collections.abc import Mapping

_PARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_STATE = re.compile(rb"[\x20-\x7e]{1,512}").fullmatch


def lines_of(parent: bytes, state: bytes = b"") -> bytes:
    """As they go into the head of a request."""
    written = b"traceparent: %b\r\n" % parent
    return b"%btracestate: %b\r\n" % (written, state) if state else written


def context_in(headers: Mapping[bytes, bytes]) -> bytes:
    """The lines for whom the call goes on to; b"" where the caller named no trace, or in a wrong form."""
    parent = headers.get(b"traceparent", b"")
    if not _PARENT(parent):
        return b""
    state = headers.get(b"tracestate", b"")
    return lines_of(parent, state if _STATE(state) else b"")


def carried(lines: bytes) -> dict[str, str]:
    """The same as a mapping."""
    pairs = (line.partition(": ") for line in lines.decode("ascii").splitlines())
    return {name: value for name, _, value in pairs}
