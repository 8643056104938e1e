"""Server-sent events as bytes (WHATWG HTML, section 9.2): where one ends, and what data it carries.

Lines end with CR, LF or CRLF and with nothing else: U+2028, U+2029 and U+0085 are text. Bytes are never
decoded.
"""

import re
from collections.abc import Iterator

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"
SOFT_KEEPALIVE = b": keep-alive\n"  # becomes part of the next event
MAX_EVENT = 4 * 1024 * 1024  # bytes of one event that are held while its end is awaited

# A blank line: a line's end right after a line's end. A CR at the very end of what is there may be half a
# CRLF.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?:\r\n|\n|\r(?=[^\n]))")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventTooLarge(ValueError):
    """An event grew over the limit before it ended."""


class EventSplitter:
    """Takes pieces as the network cut them, gives back whole events in the same bytes.

    `rest` is the beginning of an event whose end has not come yet.
    """

    __slots__ = ("_limit", "rest")

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """All whole events that `data` completes, b"" if none. Raises EventTooLarge."""
        if not self.rest and data.endswith((b"\n\n", b"\r\n\r\n")):
            return data
        scan_from = max(0, len(self.rest) - 3)
        held = self.rest + data
        end = 0
        for blank in _BLANK_LINE.finditer(held, scan_from):
            end = blank.end()
        self.rest = held[end:]
        if len(self.rest) > self._limit:
            raise EventTooLarge(f"an event is longer than {self._limit} bytes")
        return held[:end]


def events(whole: bytes) -> Iterator[bytes]:
    """The single events of a run of whole ones, each with the blank line that ends it."""
    start = 0
    for blank in _BLANK_LINE.finditer(whole):
        yield whole[start : blank.end()]
        start = blank.end()
    if start < len(whole):
        yield whole[start:]


def data_of(event: bytes) -> bytes:
    """The event's data: its `data` lines joined by LF; b"" if it has none."""
    if (
        event.startswith(b"data: ")
        and event.count(b"\n") == 2
        and event.endswith(b"\n\n")
        and b"\r" not in event
    ):
        return event[6:-2]
    lines = []
    for line in _LINE_END.split(event):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)


def event_of(data: bytes) -> bytes:
    """One event that carries `data`, which holds no line end."""
    return b"data: " + data + b"\n\n"
