"""All keys of everybody: found, changed, suspended, revoked."""

from datetime import timedelta

from llmgateway.control.keys import KeyChanges
from llmgateway.control.limits import Subject
from llmgateway.control.reports import UsageAsk
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotAllowed
from llmgateway.domain.keys import Key
from llmgateway.domain.ports import UsageRow
from llmgateway.portal.keys import OVERLAPS, is_new
from llmgateway.portal.moments import as_last_day, asked_last_day
from llmgateway.portal.operators.listing import found, holds
from llmgateway.portal.operators.rights import ensure_may_change
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.spans import lately
from llmgateway.portal.standings import standings_of
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit
from llmgateway.portal.words import later

STATES = ("active", "suspended", "revoked")
FILTERS = ("user", "project", "state")
ONLY_ADMIN = later("Only an administrator may see a new secret of somebody else's key.")


async def show(desk: Desk, visit: Visit) -> Answer:
    query = {name: visit.asked(name) for name in ("q", *FILTERS) if visit.asked(name)}
    where: dict[str, str | None] = {name: query[name] for name in FILTERS if name in query}
    wanted = id_in(query.get("q", ""))

    def matches(key: Key) -> bool:
        return key.purpose == "programs" and holds(wanted, key.id, key.name, key.user, key.hint)

    keys, following = await found(
        lambda limit, after: desk.control.keys.page(where, limit=limit, after=after),
        matches, visit.asked("after") or None,
    )  # fmt: skip
    values = {
        "keys": keys, "usage": await _usage(desk), "query": query, "following": following,
        "is_first": not visit.asked("after"), "states": STATES, "now": desk.clock.now(),
    }  # fmt: skip
    return Page("operators/keys.html", values)


def id_in(wanted: str) -> str:
    """Of a key that was pasted only its id is looked for: it is what stands in lists."""
    parts = wanted.split("_")
    return parts[1] if len(parts) > 1 and parts[0] == "lgw" else wanted


async def show_one(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    key, now = await _which(desk, visit), desk.clock.now()
    limits = await desk.control.limits.get(Subject("key", key.id))
    report = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, key=key.id, by="model"))
    values = {
        "key": key, "error": error, "form": visit.form, "rows": report.rows,
        "standings": await standings_of(desk, limits.scopes),
        "last_used_at": await desk.control.keys.last_used_at(key),
        "is_over": key.expires_at is not None and key.expires_at <= now,
        "is_overlapping": key.previous_until is not None and key.previous_until > now,
        "last_day": as_last_day(desk, key.expires_at),
        "models": [model.id for model in await desk.control.models.catalog()], "overlaps": OVERLAPS,
    }  # fmt: skip
    return Page("operators/key.html", values, status_of(error))


async def change(desk: Desk, visit: Visit) -> Answer:
    key, form = await _to_change(desk, visit), visit.form
    try:
        day = asked_last_day(desk, visit, "expires")
        is_same = form.text("expires") == as_last_day(desk, key.expires_at)
        changes = KeyChanges(
            name=form.text("name"), models=form.all("models") if form.text("scope") == "some" else None,
            expires_at=key.expires_at if is_same else day,
        )  # fmt: skip
        if is_same:  # one that is over may be renamed, too
            changes = KeyChanges(name=changes.name, models=changes.models)
        await desk.control.keys.change(visit.actor, key.id, changes)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    return Redirect("op-key", {"id": key.id}, said="changed")


async def ask_state(desk: Desk, visit: Visit) -> Answer:
    values = {"key": await _which(desk, visit), "revokes": visit.asked("to") == "revoked"}
    return Page("operators/key-state.html", values)


async def change_state(desk: Desk, visit: Visit) -> Answer:
    key, wanted = await _to_change(desk, visit), visit.form.text("state")
    if wanted == "revoked":
        await desk.control.keys.revoke(visit.actor, key.id)
        return Redirect("op-key", {"id": key.id}, said="revoked")
    is_back = wanted == "active"
    try:
        changes = KeyChanges(state="active" if is_back else "suspended")
        await desk.control.keys.change(visit.actor, key.id, changes)
    except Conflict as error:
        return await show_one(desk, visit, error)
    return Redirect("op-key", {"id": key.id}, said="resumed" if is_back else "suspended")


async def rotate(desk: Desk, visit: Visit) -> Answer:
    key = await _which(desk, visit)
    if not visit.me.is_admin and not key.user.startswith("service:"):
        raise NotAllowed(ONLY_ADMIN)
    overlap = OVERLAPS.get(visit.form.text("overlap"), timedelta(hours=24))
    if not await is_new(desk, visit):
        return Redirect("op-key", {"id": key.id}, said="already")
    try:
        issued = await desk.control.keys.rotate(visit.actor, key.id, overlap)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    values = {"key": issued.key, "token": issued.token.reveal(), "back": "op-key", "back_id": key.id}
    return Page("operators/key-shown.html", values, 201)


async def _which(desk: Desk, visit: Visit) -> Key:
    return await desk.control.keys.get(visit.request.path_params["id"])


async def _to_change(desk: Desk, visit: Visit) -> Key:
    key = await _which(desk, visit)
    await ensure_may_change(desk, visit, key.user)
    return key


async def _usage(desk: Desk) -> dict[str | None, UsageRow]:
    report = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, by="key"))
    return {row.group["key"]: row for row in report.rows}
