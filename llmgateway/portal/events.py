"""Pieces of a page that follow it for as long as somebody looks, as server-sent events."""

from collections.abc import AsyncIterator, Mapping

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

SEND_SECONDS = 30.0  # for a browser that does not read


def event_stream(pieces: AsyncIterator[str], headers: Mapping[str, str]) -> Response:
    return EventSourceResponse(_events(pieces), headers=headers, send_timeout=SEND_SECONDS)


async def _events(pieces: AsyncIterator[str]) -> AsyncIterator[ServerSentEvent]:
    """A piece is sent when it differs from the one before."""
    last = None
    async for piece in pieces:
        if piece != last:
            yield ServerSentEvent(piece, sep="\n")
            last = piece
