"""One person: what they have, what they use, and what an operator can do about it."""

from datetime import timedelta

from llmgateway.control.keys import NewKey
from llmgateway.control.limits import Subject
from llmgateway.control.moments import now_of
from llmgateway.control.people import UserChanges
from llmgateway.control.reports import UsageAsk
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotAllowed
from llmgateway.domain.people import Role, User
from llmgateway.portal.keys import LIVES, is_new, keys_of
from llmgateway.portal.operators.people import ROLES
from llmgateway.portal.operators.rights import ONLY_ADMIN, may_change
from llmgateway.portal.overview import failures_of, refusals_of, tokens_by_day
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.spans import lately
from llmgateway.portal.standings import of_person
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit
from llmgateway.portal.words import later

MOST_KEYS = 50  # shown
NOT_YOURSELF = later("You cannot do this to your own account; ask another administrator.")


async def show(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    user = await _who(desk, visit)
    keys = await keys_of(desk, user.id)
    month = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, user=user.id))
    values = {
        "user": user, "keys": keys[:MOST_KEYS], "more_keys": len(keys) > MOST_KEYS, "error": error,
        "form": visit.form, "total": month.rows[0] if month.rows else None,
        "chart": await tokens_by_day(desk, visit, lately(desk), {"user": user.id}),
        "standings": await of_person(desk, user, keys[:MOST_KEYS]),
        "limits": await desk.control.limits.get(Subject("user", user.id)),
        "failures": await failures_of(desk, user.id), "refusals": await refusals_of(desk, user.id),
        "sessions": await desk.sessions.of_user(user.id),
        "accepted": await desk.control.agreements.of(user.id), "roles": ROLES,
        "may_change": may_change(visit, user), "is_me": user.id == visit.me.id,
        "has_password": await desk.accounts.has(user.id),
        "may_have_password": desk.accounts.refusal_of(user) is None,
    }  # fmt: skip
    return Page("operators/person.html", values, status_of(error))


async def change(desk: Desk, visit: Visit) -> Answer:
    user, form = await _to_change(desk, visit), visit.form
    changes = UserChanges(
        name=form.text("name") or None, email=form.text("email") or None,
        project=form.text("project") or None,
    )  # fmt: skip
    try:
        await desk.control.people.change(visit.actor, user.id, changes)
    except (InvalidRequest, Conflict) as error:
        return await show(desk, visit, error)
    return Redirect("op-person", {"id": user.id}, said="changed")


async def change_roles(desk: Desk, visit: Visit) -> Answer:
    """Administrators only, and never their own: so one is always left."""
    user = await _to_change(desk, visit)
    if user.id == visit.me.id:
        raise NotAllowed(NOT_YOURSELF)
    given: list[Role] = [role for role in ROLES if role in visit.form.all("roles")]
    try:
        await desk.control.people.change(visit.actor, user.id, UserChanges(roles=given))
    except (InvalidRequest, Conflict) as error:
        return await show(desk, visit, error)
    return Redirect("op-person", {"id": user.id}, said="changed")


async def ask_state(desk: Desk, visit: Visit) -> Answer:
    return Page("operators/person-suspend.html", {"user": await _to_change(desk, visit)})


async def change_state(desk: Desk, visit: Visit) -> Answer:
    user = await _to_change(desk, visit)
    if user.id == visit.me.id:
        raise NotAllowed(NOT_YOURSELF)
    is_back = visit.form.text("state") == "active"
    changes = UserChanges(state="active" if is_back else "suspended")
    await desk.control.people.change(visit.actor, user.id, changes)
    if not is_back:
        await desk.sessions.end_all(user.id)
    return Redirect("op-person", {"id": user.id}, said="resumed" if is_back else "suspended")


async def ask_forget(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    values = {"user": await _who(desk, visit), "error": error, "form": visit.form}
    return Page("operators/person-forget.html", values, status_of(error))


async def forget(desk: Desk, visit: Visit) -> Answer:
    """Administrators only; their own account they end on its own page."""
    user = await _who(desk, visit)
    if user.id == visit.me.id:
        raise NotAllowed(NOT_YOURSELF)
    try:
        await desk.erasure.forget(visit.actor, user.id, typed=visit.form.text("typed"))
    except (InvalidRequest, Conflict) as error:
        return await ask_forget(desk, visit, error)
    return Redirect("op-people", said="forgotten")


async def end_sessions(desk: Desk, visit: Visit) -> Answer:
    user = await _to_change(desk, visit)
    async with desk.control.audit.change(visit.actor, "sessions.end", user.id) as entry:
        await entry.accept({"which": "all"})
        await desk.sessions.end_all(user.id)
    return Redirect("op-person", {"id": user.id}, said="sessions")


async def set_password(desk: Desk, visit: Visit) -> Answer:
    """A random one. Their own people change on the account page, where the old one is asked for."""
    user = await _to_change(desk, visit)
    if user.id == visit.me.id:
        raise NotAllowed(NOT_YOURSELF)
    if not await is_new(desk, visit):
        return Redirect("op-person", {"id": user.id}, said="already")
    try:
        made = await desk.accounts.set_password(visit.actor, user.id, None)
    except Conflict as error:
        return await show(desk, visit, error)
    values = {"user": user, "password": made.password.reveal(), "is_new": made.is_new, "ended": made.ended}
    return Page("operators/password-shown.html", values, 201)


async def create_key(desk: Desk, visit: Visit) -> Answer:
    """Administrators only: whoever holds the key calls in this person's name."""
    user, form = await _who(desk, visit), visit.form
    if not await is_new(desk, visit):
        return Redirect("op-person", {"id": user.id}, said="already")
    life = LIVES.get(form.text("life"), 90)
    expires_at = None if life is None else now_of(desk.clock) + timedelta(days=life)
    new = NewKey(user=user.id, name=form.text("key_name"), expires_at=expires_at)
    try:
        issued = await desk.control.keys.create(visit.actor, new)
    except (InvalidRequest, Conflict) as error:
        return await show(desk, visit, error)
    values = {"key": issued.key, "token": issued.token.reveal(), "back": "op-person", "back_id": user.id}
    return Page("operators/key-shown.html", values, 201)


async def _who(desk: Desk, visit: Visit) -> User:
    return await desk.control.people.get(visit.request.path_params["id"])


async def _to_change(desk: Desk, visit: Visit) -> User:
    user = await _who(desk, visit)
    if not may_change(visit, user):
        raise NotAllowed(ONLY_ADMIN)
    return user
