"""Signing in and out, signing up, and how pages look: what somebody can do who is not known yet."""

import logging
from functools import partial
from typing import cast

from llmgateway.control.accounts import NewAccount
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotAuthenticated, OverLimit
from llmgateway.domain.secret import Secret
from llmgateway.portal.visit import Answer, Desk, Look, Page, Redirect, Theme, Visit
from llmgateway.portal.words import LANGUAGES

log = logging.getLogger(__name__)

REFUSALS = (Conflict, InvalidRequest, NotAuthenticated, OverLimit)
STATUS = {Conflict: 409, InvalidRequest: 422, NotAuthenticated: 401, OverLimit: 429}


def status_of(error: GatewayError | None) -> int:
    """Of a form that is shown again with what is wrong."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 200)


async def show_sign_in(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    following = visit.form.text("next") or visit.asked("next")
    if visit.user is not None:
        return Redirect("overview", wish=following)
    is_local = desk.accounts.rules().sign_in
    is_alone = is_local and desk.federation is None and desk.accounts.rules().is_private
    if is_alone and error is None and await desk.accounts.is_empty():
        return Redirect("sign-up")
    values = {
        "error": error, "next": following, "is_local": is_local, "login": visit.form.text("login"),
        "may_sign_up": await desk.accounts.may_sign_up(),
    }  # fmt: skip
    return Page("sign-in.html", values, status_of(error))


async def sign_in(desk: Desk, visit: Visit) -> Answer:
    login, password = visit.form.text("login"), Secret(visit.form.raw("password"))
    try:
        proved = await desk.accounts.sign_in(visit.actor, login, password, visit.address)
    except REFUSALS as error:
        return await show_sign_in(desk, visit, error)
    return Redirect("overview", wish=visit.form.text("next"), begins_for=proved.user,
                    if_still=partial(desk.accounts.is_still, proved))  # fmt: skip


async def sign_out(desk: Desk, visit: Visit) -> Answer:
    if visit.user is not None:
        await desk.playground.end(visit.actor, visit.user.id)
    word = None if desk.federation is None else await desk.federation.leave(visit)
    if visit.user is not None:
        await desk.sessions.end_one(visit.user.id, visit.current.handle)
        await _note_end(desk, visit)
    if word is not None:
        return Redirect("saml-slo", {"word": word}, ends=True)
    return Redirect("sign-in", said="signed-out", ends=True)


async def _note_end(desk: Desk, visit: Visit) -> None:
    """Never keeps anybody from signing out."""
    try:
        await desk.control.audit.write(
            visit.actor, "sessions.end", visit.me.id, result="ok", details={"how": visit.current.how}
        )
    except GatewayError as error:
        log.warning("no audit line for a sign-out", extra={"fields": {"error": error.code}})


async def show_sign_up(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    if visit.user is not None:
        return Redirect("overview")
    if not await desk.accounts.may_sign_up():
        return Redirect("sign-in")
    is_first = await desk.accounts.is_first()
    values = {
        "error": error, "form": visit.form, "is_first": is_first,
        "asks_claim": is_first and not desk.accounts.rules().is_private,
        "needs_claim": not desk.accounts.rules().sign_up,
    }  # fmt: skip
    return Page("sign-up.html", values, status_of(error))


async def sign_up(desk: Desk, visit: Visit) -> Answer:
    form = visit.form
    claim = form.raw("claim").strip()
    new = NewAccount(
        login=form.text("login"), password=Secret(form.raw("password")), name=form.text("name") or None,
        claim=Secret(claim) if claim else None,
    )  # fmt: skip
    try:
        user = await desk.accounts.sign_up(visit.actor, new, visit.address)
    except REFUSALS as error:
        return await show_sign_up(desk, visit, error)
    return Redirect("overview", said="welcome", begins_for=user.id)


async def set_look(desk: Desk, visit: Visit) -> Answer:
    language, theme = visit.form.text("language"), visit.form.text("theme")
    look = Look(
        language if language in LANGUAGES else visit.look.language,
        cast(Theme, theme) if theme in ("auto", "light", "dark") else visit.look.theme,
    )
    home = "overview" if visit.user else "sign-in"
    return Redirect(home, wish=visit.form.text("next"), look=look)
