"""Who may operate: the one place where the operators' API decides it, before a body or path is looked at."""

import hmac
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from llmgateway.control.audit import Actor
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.domain.secret import Secret

Session = Callable[[Request], Awaitable[str | None]]
"""The id of the user with the role `admin` whose portal session a request proves; None, too, for what another
site made the browser send."""

Source = Callable[[Request], str]
"""The address that a request came from, behind whatever proxies are trusted."""


def peer(request: Request) -> str:
    return request.client.host if request.client else "unknown"


class Gate:
    """Lets in who brings the operators' key, or a session if there are any. Every refusal is the same."""

    def __init__(self, admin_key: Secret, session: Session | None = None, *, source: Source = peer) -> None:
        self._admin_key = admin_key.reveal().encode()
        self._session = session
        self._source = source

    async def __call__(self, request: Request) -> Actor:
        given = _credential(request)
        if given is not None and hmac.compare_digest(given, self._admin_key):
            return self._actor("operator", request)
        user = await self._session(request) if given is None and self._session is not None else None
        if user is None:
            raise NotAuthenticated
        return self._actor(f"user {user}", request)

    def _actor(self, who: str, request: Request) -> Actor:
        return Actor(who, f"admin {self._source(request)}", getattr(request.state, "request_id", None))


def _credential(request: Request) -> bytes | None:
    """None where no credential is given; what cannot be one, and more than one of a kind, is an empty one."""
    plain = request.headers.getlist("adminkey")
    if plain:
        return plain[0].encode() if len(plain) == 1 else b""
    bearer = request.headers.getlist("authorization")
    if not bearer:
        return None
    scheme, _, token = bearer[0].partition(" ")
    return token.encode() if len(bearer) == 1 and scheme.lower() == "bearer" else b""
