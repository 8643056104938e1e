"""`/v1` for programs: the calls of the table in `domain/endpoints.py`, taken before any router and
middleware."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from llmgateway.domain.endpoints import ENDPOINTS, Endpoint
from llmgateway.domain.errors import (
    GatewayError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    OverLimit,
    Overloaded,
)
from llmgateway.domain.ids import Ids
from llmgateway.domain.ports import Clock
from llmgateway.domain.refusals import Refusal
from llmgateway.edge.asgi import Receive, Scope, Send
from llmgateway.edge.caller import Arrival, HttpCaller
from llmgateway.edge.errors import status_of
from llmgateway.flow.gateway import Gateway

log = logging.getLogger(__name__)

REFUSALS = (InvalidRequest, NotAllowed, NotFound, OverLimit, Overloaded)  # what leaves no record
LONGEST = 300  # characters of a message that are kept


class Tracing(Protocol):
    """Told of each call's begin, and of its end with the code of what went wrong. `begin` takes the lines of
    the caller's trace and gives those for the model server."""

    def begin(self, id: str, at: datetime, route: str, caller: bytes) -> bytes: ...

    def left(self, id: str, error: str | None) -> None: ...


Refused = Callable[[str, Refusal], None]
"""Told of whose call was refused, and why; must not wait."""


class Programs:
    """An ASGI application for one endpoint's calls."""

    def __init__(
        self, gateway: Gateway, clock: Clock, *, max_body: int, refused: Refused,
        tracing: Tracing | None = None,
    ) -> None:  # fmt: skip
        self._gateway = gateway
        self._clock = clock
        self._ids = Ids()
        self._max_body = max_body
        self._refused = refused
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send, endpoint: Endpoint) -> None:
        at = self._clock.now()
        arrival = Arrival(self._ids(at), at, self._clock.monotonic())
        caller = HttpCaller(scope, receive, send, endpoint, arrival, max_body=self._max_body)
        tracing, code = self._tracing, None
        if tracing is not None:
            caller.trace = tracing.begin(caller.id, at, endpoint.path, caller.trace)
        try:
            await self._gateway.exchange(caller)
        except GatewayError as error:
            code = error.code
            await self._tell(caller, error)
        except Exception:
            code = GatewayError.code
            log.exception(
                "a call failed inside the gateway", extra={"fields": {"request_id": caller.request_id}}
            )
            await caller.tell(
                GatewayError("The gateway failed; the operators can find this call by its request id.")
            )
        finally:
            if tracing is not None:
                tracing.left(caller.id, code)

    async def _tell(self, caller: HttpCaller, error: GatewayError) -> None:
        await caller.tell(error)
        if isinstance(error, REFUSALS):
            await self._note(caller, error)

    async def _note(self, caller: HttpCaller, error: GatewayError) -> None:
        """For the people whose key it was, which memory still knows."""
        with suppress(GatewayError):
            principal = await self._gateway.authenticate(caller.token)
            self._refused(principal.user, Refusal(
                at=caller.at, status=status_of(error), code=error.code, message=error.message[:LONGEST],
                request_id=caller.request_id, key=principal.key_id,
            ))  # fmt: skip


def endpoint_at(path: str) -> Endpoint | None:
    """The endpoint of a path; a trailing slash is forgiven."""
    return ENDPOINTS.get(path) or ENDPOINTS.get(path.rstrip("/"))
