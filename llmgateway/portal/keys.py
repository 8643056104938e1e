"""A person's API keys: listed, made, shown once, renamed, rotated, revoked. A key of somebody else is not
there."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from msgspec import Struct, structs

from llmgateway.control.absence import due_at
from llmgateway.control.keys import Issued, KeyChanges, NewKey
from llmgateway.control.moments import now_of
from llmgateway.control.reports import UsageAsk
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotFound
from llmgateway.domain.keys import Key
from llmgateway.domain.limits import Limits
from llmgateway.domain.ports import UsageRow
from llmgateway.portal.form import Form
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.spans import lately
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit
from llmgateway.portal.words import later

MOST = 10  # active keys of a person
PAGE = 1000
LIVES = {"30": 30, "90": 90, "365": 365, "": None}  # days; "" is for ever
OFFERED_LIMITS = ("requests_per_minute", "tokens_per_day", "tokens_per_month")
ONCE_SECONDS = 86_400.0  # a form that was sent is not taken again
OVERLAPS = {"0": timedelta(), "1": timedelta(hours=1), "24": timedelta(hours=24), "168": timedelta(days=7)}


class Listed(Struct, frozen=True, kw_only=True):
    """A key with what it was used for in the last thirty days, and when last. `is_over`: it has expired."""

    key: Key
    usage: UsageRow | None
    last_used_at: datetime | None
    is_over: bool


async def keys_of(desk: Desk, user: str) -> list[Key]:
    """Newest first, without those that the portal uses itself."""
    found, after = list[Key](), None
    while True:
        page, after = await desk.control.keys.page({"user": user}, limit=PAGE, after=after)
        found += [key for key in page if key.purpose == "programs"]
        if after is None:
            return sorted(found, key=lambda key: key.created_at, reverse=True)


async def show(desk: Desk, visit: Visit) -> Answer:
    usage, now = await _usage_by_key(desk, visit.me.id), desk.clock.now()
    listed = [
        Listed(
            key=key, usage=usage.get(key.id), is_over=key.expires_at is not None and key.expires_at <= now,
            last_used_at=await desk.control.keys.last_used_at(key) if key.id in usage else None,
        )
        for key in await keys_of(desk, visit.me.id)
    ]  # fmt: skip
    in_use = [one for one in listed if one.key.state != "revoked" and not one.is_over]
    over = [one for one in listed if one.key.state == "revoked" or one.is_over]
    due = due_at(visit.me, desk.facts().key_rules)
    return Page("keys.html", {"in_use": in_use, "over": over, "most": MOST, "due": due})


async def show_new(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    values = {
        "error": error, "form": visit.form, "models": desk.visible_to(visit.me), "lives": LIVES,
        "once": secrets.token_urlsafe(16),
    }  # fmt: skip
    return Page("key-new.html", values, status_of(error))


async def create(desk: Desk, visit: Visit) -> Answer:
    try:
        new = _new_key(desk, visit)
        async with _alone(desk, visit.me.id):
            await _refuse_too_many(desk, visit.me.id)
            if not await is_new(desk, visit):
                return Redirect("keys", said="already")
            issued = await desk.control.keys.create(visit.actor, new)
    except (InvalidRequest, Conflict) as error:
        return await show_new(desk, visit, error)
    return _shown(desk, visit, issued)


async def show_one(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    key = await _own(desk, visit)
    ask = UsageAsk(start=lately(desk).start, user=visit.me.id, key=key.id, by="model")
    report = await desk.control.reports.usage(ask)
    now = desk.clock.now()
    values = {
        "key": key, "error": error, "form": visit.form, "rows": report.rows,
        "limits": {name: most for name, most in structs.asdict(key.limits).items() if most is not None},
        "last_used_at": await desk.control.keys.last_used_at(key), "overlaps": OVERLAPS,
        "is_over": key.expires_at is not None and key.expires_at <= now,
        "is_overlapping": key.previous_until is not None and key.previous_until > now,
        "once": secrets.token_urlsafe(16),
    }  # fmt: skip
    return Page("key.html", values, status_of(error))


async def rename(desk: Desk, visit: Visit) -> Answer:
    key = await _own(desk, visit)
    try:
        await desk.control.keys.change(visit.actor, key.id, KeyChanges(name=visit.form.text("name")))
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    return Redirect("key", {"id": key.id}, said="changed")


async def rotate(desk: Desk, visit: Visit) -> Answer:
    key = await _own(desk, visit)
    overlap = OVERLAPS.get(visit.form.text("overlap"), timedelta(hours=24))
    if not await is_new(desk, visit):
        return Redirect("key", {"id": key.id}, said="already")
    try:
        issued = await desk.control.keys.rotate(visit.actor, key.id, overlap)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    return _shown(desk, visit, issued)


async def ask_revoke(desk: Desk, visit: Visit) -> Answer:
    return Page("key-revoke.html", {"key": await _own(desk, visit)})


async def revoke(desk: Desk, visit: Visit) -> Answer:
    key = await _own(desk, visit)
    await desk.control.keys.revoke(visit.actor, key.id)
    return Redirect("keys", said="revoked")


def _shown(desk: Desk, visit: Visit, issued: Issued) -> Page:
    """The answer to the form itself: the key is kept nowhere for a page that would come after it."""
    models = issued.key.models or [model.id for model in desk.visible_to(visit.me)[:1]]
    values = {"key": issued.key, "token": issued.token.reveal(), "model": next(iter(models), "MODEL")}
    return Page("key-shown.html", values, 201)


async def _own(desk: Desk, visit: Visit) -> Key:
    key = await desk.control.keys.get(visit.request.path_params["id"], owner=visit.me.id)
    if key.purpose != "programs":
        raise NotFound(later("There is no such page."))
    return key


async def is_new(desk: Desk, visit: Visit) -> bool:
    """Whether this form is sent for the first time: reloading its answer sends it again."""
    once = visit.form.text("once")[:64]
    return await desk.shelf.add("once", f"{visit.me.id}:{once}", b"1", ONCE_SECONDS)


@asynccontextmanager
async def _alone(desk: Desk, user: str) -> AsyncIterator[None]:
    """Two windows must not both make the last key that is allowed."""
    if not await desk.shelf.add("making-key", user, b"1", 15):
        raise Conflict(later("Another key of yours is being made; please try again."))
    try:
        yield
    finally:
        await desk.shelf.delete("making-key", user)


async def _usage_by_key(desk: Desk, user: str) -> dict[str | None, UsageRow]:
    report = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, user=user, by="key"))
    return {row.group["key"]: row for row in report.rows}


async def _refuse_too_many(desk: Desk, user: str) -> None:
    now = desk.clock.now()
    if sum(_counts(key, now) for key in await keys_of(desk, user)) >= MOST:
        raise Conflict(later("You have as many keys as one person may have; revoke one first."))


def _counts(key: Key, now: datetime) -> bool:
    return key.state != "revoked" and (key.expires_at is None or key.expires_at > now)


def _new_key(desk: Desk, visit: Visit) -> NewKey:
    form = visit.form
    models = None if form.text("scope") != "some" else form.all("models")
    visible = {model.id for model in desk.visible_to(visit.me)}
    if models is not None and not models:
        raise InvalidRequest(later("Choose at least one model, or allow all."), param="models")
    if models is not None and not visible.issuperset(models):
        raise InvalidRequest(later("One of these models is not there any more."), param="models")
    life = LIVES.get(form.text("life"), 90)
    expires_at = None if life is None else now_of(desk.clock) + timedelta(days=life)
    return NewKey(
        user=visit.me.id, name=form.text("name"), models=models, expires_at=expires_at, limits=_limits(form)
    )


def _limits(form: Form) -> Limits:
    return Limits(**{name: form.whole(name) for name in OFFERED_LIMITS})
