"""The way into every page: who may come in, whether a form is our own, and errors made into pages.

Nothing of a form is read before its sender is known.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Literal, cast

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmgateway.control.announcements import Announcement
from llmgateway.control.plain import plain
from llmgateway.domain.errors import GatewayError, MethodNotAllowed, NotAllowed, NotFound, Unavailable
from llmgateway.domain.people import User
from llmgateway.portal.address import Addresses
from llmgateway.portal.cookie import cookie_in
from llmgateway.portal.events import event_stream
from llmgateway.portal.form import read_form
from llmgateway.portal.origin import Origins
from llmgateway.portal.page import Pages
from llmgateway.portal.paths import path_to
from llmgateway.portal.sessions import CSRF_HEADER, is_token
from llmgateway.portal.visit import (
    Answer,
    Desk,
    Download,
    Elsewhere,
    Events,
    Look,
    Page,
    Redirect,
    Show,
    Theme,
    Visit,
)
from llmgateway.portal.words import Words, language_of, later

log = logging.getLogger(__name__)

LOOK_SECONDS = 31_536_000
WAY_SECONDS = 900  # for signing in somewhere else
MOST_FROM_ELSEWHERE = 768 * 1024  # bytes of a form
SIGN_IN, HOME, TERMS = "sign-in", "overview", "terms"
OVER = "over"  # a session that once was
NOT_OURS = later("This did not come from a page of this portal. Please go back, reload it and try again.")
FAILED = later("The gateway failed; the operators can find out why by the request id.")
ELSEWHERE = later("This gateway is known by another address: %(url)s")


class Place(Struct, frozen=True, kw_only=True):
    """An address and what is done there. `is_destination`: a visitor may be sent there by its name.
    `is_from_elsewhere`: forms of other sites come here; no session counts, what is brought must prove
    itself. `is_before_terms`: also for who has not accepted the terms of use yet. `is_for_strangers`: also
    where and while nobody can be recognised."""

    name: str
    path: str
    get: Show | None = None
    post: Show | None = None
    needs: Literal["nobody", "user", "operator", "admin"] = "user"
    is_destination: bool = False
    is_from_elsewhere: bool = False
    is_before_terms: bool = False
    is_for_strangers: bool = False

    def admits(self, user: User) -> bool:
        if self.needs == "admin":
            return user.is_admin
        return self.needs != "operator" or user.is_operator


class House(Struct, frozen=True, kw_only=True):
    """What all doors have together. `status_of` is the edge's table from errors to HTTP."""

    desk: Desk
    pages: Pages
    origins: Origins
    addresses: Addresses
    words: Mapping[str, Words]
    places: Mapping[str, Place]
    status_of: Callable[[GatewayError], int]

    @property
    def look_cookie(self) -> str:
        return "__Host-lgw-look" if self.origins.is_secure else "lgw-look"

    @property
    def way_cookie(self) -> str:
        return way_cookie(is_secure=self.origins.is_secure)


def way_cookie(*, is_secure: bool) -> str:
    return "__Host-lgw-way" if is_secure else "lgw-way"


class Door:
    """An ASGI application for one place; None is everywhere else."""

    def __init__(self, house: House, place: Place | None) -> None:
        self._house = house
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        visit = self._stranger(request)
        try:
            visit = await self._known(visit)
            response = await self._response(visit)
        except GatewayError as error:
            response = await self._failed(visit, error)
        except Exception:
            log.exception("a page failed", extra={"fields": {"request_id": visit.actor.request_id}})
            response = await self._failed(visit, GatewayError(FAILED))
        await response(scope, receive, send)

    # --- who comes ---

    def _stranger(self, request: Request) -> Visit:
        look = self._look(request)
        return Visit(
            request=request, words=self._house.words[look.language], look=look,
            address=self._house.addresses.of(request),
        )  # fmt: skip

    def _look(self, request: Request) -> Look:
        language, _, theme = (cookie_in(request, self._house.look_cookie) or "").partition(".")
        if language not in self._house.words:
            language = language_of(request.headers.get("accept-language", ""), self._house.words)
        return Look(language, cast(Theme, theme if theme in ("light", "dark") else "auto"))

    async def _known(self, visit: Visit) -> Visit:
        """With the session, if there is one, and the form, if one was sent by a page of ours."""
        house, request = self._house, visit.request
        is_for_strangers = self._place is not None and self._place.is_for_strangers
        if not house.origins.is_at_home(request):
            if is_for_strangers:
                return visit
            text = visit.words.gettext(ELSEWHERE) % {"url": house.origins.public_url}
            raise NotAllowed(text, code="misdirected")
        if self._place is not None and self._place.is_from_elsewhere:
            return visit
        if request.method == "POST" and not house.origins.is_from_our_page(request):
            raise NotAllowed(NOT_OURS)
        with suppress(*((Unavailable,) if is_for_strangers else ())):
            found = await house.desk.sessions.of(request)
            if found is not None:
                return msgspec.structs.replace(visit, session=found[0], user=found[1])
        return visit

    async def _with_form(self, visit: Visit) -> Visit:
        if self._place is not None and self._place.is_from_elsewhere:
            form = await read_form(visit.request, most=MOST_FROM_ELSEWHERE)
            return msgspec.structs.replace(visit, form=form)
        header = visit.request.headers.get(CSRF_HEADER)
        form = visit.form if header is not None else await read_form(visit.request)
        token = form.raw("token") if header is None else header
        if visit.session is not None and not is_token(visit.session, token):
            raise NotAllowed(NOT_OURS)
        return msgspec.structs.replace(visit, form=form)

    # --- what is answered ---

    async def _response(self, visit: Visit) -> Response:
        place, method = self._place, visit.request.method
        if place is None or (visit.user and not place.admits(visit.user)):
            raise NotFound(later("There is no such page."))
        detour = await self._detour(visit, place)
        if detour is not None:
            following = {"next": place.name} if place.is_destination and place.name != HOME else {}
            is_over = visit.user is None and self._house.desk.sessions.had_one(visit.request)
            return await self._sent(visit, Redirect(detour, following, said=OVER if is_over else None))
        show = place.post if method == "POST" else place.get if method in ("GET", "HEAD") else None
        if show is None:
            raise MethodNotAllowed(later("This page cannot be used like that."))
        if method == "POST":
            visit = await self._with_form(visit)
        try:
            answer = await show(self._house.desk, visit)
        except NotAllowed as error:
            await self._tell(visit, place, error)
            raise
        return await self._sent(visit, answer)

    async def _tell(self, visit: Visit, place: Place, error: NotAllowed) -> None:
        """What an operator tried whom the role does not allow it. Never hides the error."""
        if visit.request.method != "POST" or place.needs not in ("operator", "admin"):
            return
        target = str(visit.request.path_params.get("id", "")) or visit.me.id
        try:
            await self._house.desk.control.audit.write(
                visit.actor, f"portal.{place.name}", target, result=error.code, details={}
            )
        except GatewayError as missing:
            fields = {"place": place.name, "error": missing.code}
            log.warning("no audit line for what was refused", extra={"fields": fields})

    async def _detour(self, visit: Visit, place: Place) -> str | None:
        """The place that comes first: the sign-in, or the terms of use."""
        if place.needs == "nobody":
            return None
        if visit.user is None:
            return SIGN_IN
        agreements = self._house.desk.control.agreements
        return TERMS if not place.is_before_terms and await agreements.is_owed(visit.user.id) else None

    async def _sent(self, visit: Visit, answer: Answer) -> Response:
        pages = self._house.pages
        if isinstance(answer, Page):
            return await self._shown(visit, answer, self._place.name if self._place else None)
        if isinstance(answer, Events):
            return event_stream(self._pieces(visit, answer), pages.headers)
        if isinstance(answer, Redirect):
            return await self._redirected(visit, answer)
        if isinstance(answer, Elsewhere):
            return self._sent_away(answer)
        if isinstance(answer, Download):
            name = {"content-disposition": f'attachment; filename="{answer.name}"'}
            return Response(answer.body, media_type=answer.media_type, headers=pages.headers | name)
        body = msgspec.json.encode(answer.value, enc_hook=plain)
        return Response(body, media_type="application/json", headers=pages.headers)

    async def _shown(self, visit: Visit, page: Page, place: str | None) -> Response:
        """What operators announce stands at its head; where that cannot be read now, the page is shown
        without."""
        desk = self._house.desk
        announcements: list[Announcement] = []
        with suppress(GatewayError):
            announcements = await desk.control.announcements.current()
        return self._house.pages.response(desk, visit, page, place, announcements)

    async def _pieces(self, visit: Visit, answer: Events) -> AsyncIterator[str]:
        """Until the session ends, or the role does."""
        house = self._house
        async for event in answer.events:
            found = None
            with suppress(GatewayError):
                found = await house.desk.sessions.of(visit.request)
            if found is None or self._place is None or not self._place.admits(found[1]):
                return
            yield house.pages.piece(house.desk, visit, event)

    async def _redirected(self, visit: Visit, redirect: Redirect) -> Response:
        said = {"said": redirect.said} if redirect.said else {}
        wished = self._house.places.get(redirect.wish)
        is_granted = wished is not None and wished.is_destination
        place = self._house.places[redirect.wish if is_granted else redirect.place]
        path = path_to(place.path, {**redirect.parameters, **said})
        response = Response(status_code=303, headers={**self._house.pages.headers, "location": path})
        sessions = self._house.desk.sessions
        if redirect.begins_for is not None:
            session = await sessions.begin(
                visit.request, response, redirect.begins_for, redirect.how,
                address=visit.address, details=redirect.details,
            )  # fmt: skip
            if redirect.if_still is not None and not await redirect.if_still():
                await sessions.end_one(session.user, session.handle)
                return await self._redirected(visit, Redirect(SIGN_IN, said=OVER))
        if redirect.ends:
            await sessions.end(visit.request, response)
        if redirect.look is not None:
            response.set_cookie(
                self._house.look_cookie, f"{redirect.look.language}.{redirect.look.theme}",
                max_age=LOOK_SECONDS, path="/", secure=self._house.origins.is_secure, httponly=True,
                samesite="lax",
            )  # fmt: skip
        return response

    def _sent_away(self, answer: Elsewhere) -> Response:
        response = Response(status_code=303, headers={**self._house.pages.headers, "location": answer.url})
        if answer.remembers is not None:
            response.set_cookie(
                self._house.way_cookie, answer.remembers, max_age=WAY_SECONDS, path="/",
                secure=self._house.origins.is_secure, httponly=True, samesite="lax",
            )  # fmt: skip
        return response

    async def _failed(self, visit: Visit, error: GatewayError) -> Response:
        """For a script as JSON, for people as a page."""
        status = 421 if error.code == "misdirected" else self._house.status_of(error)
        if visit.request.headers.get(CSRF_HEADER) is not None:
            told = {"error": {"message": visit.words.gettext(error.message), "code": error.code}}
            return Response(
                msgspec.json.encode(told), status, media_type="application/json",
                headers=self._house.pages.headers,
            )  # fmt: skip
        values = {"error": error, "status": status, "may_pass": isinstance(error, Unavailable)}
        page = Page("error.html", values, status)
        response = await self._shown(visit, page, None)
        if error.retry_after is not None:
            response.headers["retry-after"] = str(int(error.retry_after) or 1)
        return response
