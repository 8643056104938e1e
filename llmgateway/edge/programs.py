"""`/v1` for programs: the calls of the table in `domain/endpoints.py`, taken before any router and
middleware."""

import logging

from llmgateway.domain.endpoints import ENDPOINTS, Endpoint
from llmgateway.domain.errors import GatewayError
from llmgateway.domain.ids import Ids
from llmgateway.domain.ports import Clock
from llmgateway.edge.asgi import Receive, Scope, Send
from llmgateway.edge.caller import Arrival, HttpCaller
from llmgateway.flow.gateway import Gateway

log = logging.getLogger(__name__)


class Programs:
    """An ASGI application for one endpoint's calls."""

    def __init__(self, gateway: Gateway, clock: Clock, *, max_body: int) -> None:
        self._gateway = gateway
        self._clock = clock
        self._ids = Ids()
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, endpoint: Endpoint) -> None:
        at = self._clock.now()
        arrival = Arrival(self._ids(at), at, self._clock.monotonic())
        caller = HttpCaller(scope, receive, send, endpoint, arrival, max_body=self._max_body)
        try:
            await self._gateway.exchange(caller)
        except GatewayError as error:
            await caller.tell(error)
        except Exception:
            log.exception(
                "a call failed inside the gateway", extra={"fields": {"request_id": caller.request_id}}
            )
            await caller.tell(
                GatewayError("The gateway failed; the operators can find this call by its request id.")
            )


def endpoint_at(path: str) -> Endpoint | None:
    """The endpoint of a path; a trailing slash is forgiven."""
    return ENDPOINTS.get(path) or ENDPOINTS.get(path.rstrip("/"))
