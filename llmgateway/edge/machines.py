"""For machines: is it alive, is it ready, how is it, and the metrics."""

import hmac
from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from llmgateway.domain.errors import NotAuthenticated, NotFound
from llmgateway.domain.secret import Secret
from llmgateway.edge.caller import token_of

_encode = msgspec.json.Encoder().encode


class Condition(Struct, frozen=True, kw_only=True):
    """How the gateway is. `unready` says why it wants no traffic, None when it does; `degraded` names the
    parts that do not answer, while calls still pass."""

    version: str
    config_version: int
    unready: str | None
    degraded: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        return self.unready or ("degraded" if self.degraded else "ok")


class Exposition(Struct, frozen=True):
    """Metrics as a scraper reads them."""

    body: bytes
    content_type: str


class Machines:
    """Liveness never looks at anything: a database that is away is no reason to kill the gateway."""

    def __init__(
        self,
        *,
        condition: Callable[[], Condition],
        metrics: Callable[[str], Exposition],
        metrics_for: Literal["open", "admin", "off"],
        admin_key: Secret,
    ) -> None:
        self._condition = condition
        self._metrics = metrics
        self._metrics_for = metrics_for
        self._admin_key = admin_key

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/health/live", self.live),
            Route("/health/ready", self.ready),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]

    async def live(self, request: Request) -> Response:
        return _json({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        unready = self._condition().unready
        return _json({"status": unready or "ready"}, 503 if unready else 200)

    async def health(self, request: Request) -> Response:
        now = self._condition()
        told = {
            "status": now.word,
            "live": True,
            "ready": now.unready is None,
            "degraded": now.degraded,
            "version": now.version,
            "config_version": now.config_version,
        }
        return _json(told, 503 if now.unready else 200)

    async def metrics(self, request: Request) -> Response:
        if self._metrics_for == "off":
            raise NotFound("There is nothing at GET /metrics.")
        if self._metrics_for == "admin" and not shows(request, self._admin_key):
            raise NotAuthenticated(
                "The metrics are for operators: send ADMIN_KEY as 'Authorization: Bearer <key>'."
            )
        exposition = self._metrics(request.headers.get("accept", ""))
        return Response(exposition.body, headers={"content-type": exposition.content_type})


def shows(request: Request, admin_key: Secret) -> bool:
    """Whether the request brings the operators' credential, as a bearer token or in `AdminKey`."""
    pairs = request.scope["headers"]
    token = token_of(pairs, dict(pairs)) or dict(pairs).get(b"adminkey", b"")
    return hmac.compare_digest(token, admin_key.reveal().encode())


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")
