"""Sessions of people: an opaque id in a signed cookie, and its record on the shelf under the id's hash.

The cookie says nothing, and the shelf alone does not open a session: it knows no ids. The user's document is
read at every request, so whoever is suspended is out, and a changed role counts at once.
"""

import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal

import msgspec
from itsdangerous import BadSignature, Signer
from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response

from llmgateway.control.people import People
from llmgateway.domain.errors import NotAllowed, NotFound, StoreUnavailable
from llmgateway.domain.people import User
from llmgateway.domain.ports import Clock, Shelf
from llmgateway.domain.secret import Secret
from llmgateway.domain.steady import SteadyClock
from llmgateway.portal.cookie import cookie_in
from llmgateway.portal.origin import SAFE_METHODS, Origins
from llmgateway.portal.words import later

log = logging.getLogger(__name__)

SHELF = "sessions"
IDLE, LONGEST = timedelta(hours=8), timedelta(days=7)
SEEN_STEP = timedelta(minutes=1)  # how exact it is kept when a session was last seen
HANDLE_LENGTH = 16
LONGEST_AGENT = 300
CSRF_HEADER = "x-csrf-token"
NOTHING: Mapping[str, str] = MappingProxyType({})

# By marks in the User-Agent, the telling ones first: most browsers claim to be others, too.
AGENTS = (
    (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"),
     ("Safari/", "Safari"), ("curl/", "curl")),
    (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"),
     ("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
)  # fmt: skip

How = Literal["local", "saml"]


class Session(Struct, frozen=True, kw_only=True):
    """`id` is the hash that it is kept under; `handle`, the beginning of it, names it to its owner. `csrf` is
    the token of its forms. `details` are those of the way that the person was proved, for signing out
    there."""

    id: str
    user: str
    how: How
    began_at: datetime
    seen_at: datetime
    until: datetime
    csrf: str
    agent: str = ""
    address: str = ""
    details: dict[str, str] = {}

    @property
    def browser(self) -> str:
        """Such as Firefox, Linux; empty where nobody knows."""
        found = (next((name for mark, name in marks if mark in self.agent), "") for marks in AGENTS)
        return ", ".join(name for name in found if name)

    @property
    def handle(self) -> str:
        return self.id[:HANDLE_LENGTH]


class Sessions:
    """`keys`: the first signs, all verify. `idle` ends a session that nobody uses, `longest` every one."""

    def __init__(
        self, shelf: Shelf, people: People, clock: Clock, *, keys: Sequence[Secret], origins: Origins
    ) -> None:
        self._shelf = shelf
        self._people = people
        self._clock = SteadyClock(clock)
        newest_last = [key.reveal() for key in reversed(keys)]
        self._signer = Signer(newest_last, salt="llmgateway.portal.session", digest_method=hashlib.sha256)
        self._origins = origins
        self.cookie = "__Host-lgw" if origins.is_secure else "lgw"

    async def begin(
        self, request: Request, response: Response, user_id: str, how: How, *,
        address: str = "", details: Mapping[str, str] = NOTHING,
    ) -> Session:  # fmt: skip
        """Somebody is proved to be this user: a session with a new id goes with `response`, and the one that
        the browser had is over. Raises `NotAllowed` for who is suspended."""
        if not (await self._people.get(user_id)).is_active:
            raise NotAllowed(later("This account is suspended; please ask the operators."))
        await self._drop(request)
        token, now = secrets.token_urlsafe(32), self._clock.now()
        session = Session(
            id=_hash_of(token), user=user_id, how=how, began_at=now, seen_at=now, until=now + LONGEST,
            csrf=secrets.token_urlsafe(24), agent=request.headers.get("user-agent", "")[:LONGEST_AGENT],
            address=address, details=dict(details),
        )  # fmt: skip
        await self._shelf.put(SHELF, session.id, _encode(session), IDLE.total_seconds(), owner=user_id)
        self._set_cookie(response, self._signer.sign(token).decode(), LONGEST)
        return session

    async def of(self, request: Request) -> tuple[Session, User] | None:
        """The session that a request proves, and whose it is."""
        id = self._id_in(request)
        stored = None if id is None else await self._shelf.get(SHELF, id)
        if id is None or stored is None:
            return None
        session, now = msgspec.msgpack.decode(stored, type=Session), self._clock.now()
        if session.id != id:
            await self._shelf.delete(SHELF, id)
            log.error("a session's record is another's; it is deleted, and nobody is let in with it")
            raise StoreUnavailable(later("Your session could not be read; please try again."))
        user = await self._user_of(session)
        if user is None or now >= session.until:
            await self._shelf.delete(SHELF, session.id)
            return None
        return await self._seen(session, now), user

    def had_one(self, request: Request) -> bool:
        """Whether a request brings what once was a session."""
        return self._id_in(request) is not None

    async def end(self, request: Request, response: Response) -> None:
        """Signs out. What else is stored in the browser for us goes, too."""
        await self._drop(request)
        self._set_cookie(response, "", timedelta())

    async def of_user(self, user_id: str) -> list[Session]:
        """Newest first."""
        stored = (await self._shelf.owned(SHELF, user_id)).values()
        sessions = [msgspec.msgpack.decode(one, type=Session) for one in stored]
        return sorted(sessions, key=lambda session: session.began_at, reverse=True)

    async def end_one(self, user_id: str, handle: str) -> bool:
        """Whether the user had one of this handle."""
        ended = [await self._shelf.delete(SHELF, session.id) for session in await self.of_user(user_id)
                 if hmac.compare_digest(session.handle.encode(), handle.encode())]  # fmt: skip
        return any(ended)

    async def end_all(self, user_id: str, *, but: Session | None = None) -> int:
        """How many there were."""
        others = [one for one in await self.of_user(user_id) if but is None or one.id != but.id]
        return sum([await self._shelf.delete(SHELF, session.id) for session in others])

    async def administrator(self, request: Request) -> str | None:
        """The id of the user with the role `admin` whose session a request proves. What may change something
        brings the session's token in a header, which no other site can make a browser send."""
        if not self._origins.is_asked_for(request):
            return None
        found = await self.of(request)
        if found is None or not found[1].is_admin:
            return None
        given = request.headers.get(CSRF_HEADER, "")
        return found[1].id if request.method in SAFE_METHODS or is_token(found[0], given) else None

    async def _seen(self, session: Session, now: datetime) -> Session:
        if now - session.seen_at < SEEN_STEP:
            return session
        seen = structs.replace(session, seen_at=now)
        life = min(IDLE, session.until - now).total_seconds()
        await self._shelf.touch(SHELF, session.id, life, _encode(seen))
        return seen

    async def _user_of(self, session: Session) -> User | None:
        try:
            user = await self._people.get(session.user)
        except NotFound:
            return None
        return user if user.is_active else None

    async def _drop(self, request: Request) -> None:
        id = self._id_in(request)
        if id is not None:
            await self._shelf.delete(SHELF, id)

    def _id_in(self, request: Request) -> str | None:
        signed = cookie_in(request, self.cookie)
        if signed is None:
            return None
        try:
            return _hash_of(self._signer.unsign(signed).decode())
        except (BadSignature, UnicodeError):
            return None

    def _set_cookie(self, response: Response, value: str, life: timedelta) -> None:
        response.set_cookie(
            self.cookie, value, max_age=int(life.total_seconds()), path="/",
            secure=self._origins.is_secure, httponly=True, samesite="lax",
        )  # fmt: skip


def is_token(session: Session, given: str) -> bool:
    return hmac.compare_digest(session.csrf.encode(), given.encode())


def _hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _encode(session: Session) -> bytes:
    return msgspec.msgpack.encode(session)
