"""A person's own page: profile, password, sessions, and what is stored of them."""

import msgspec

from llmgateway.control.keys import key_view
from llmgateway.control.moments import written
from llmgateway.control.people import UserChanges, user_view
from llmgateway.control.plain import plain
from llmgateway.control.reports import RecordsAsk, UsageAsk, record_view, usage_view
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotFound, OverLimit
from llmgateway.domain.secret import Secret
from llmgateway.portal.keys import PAGE
from llmgateway.portal.sign_in import sign_out, status_of
from llmgateway.portal.visit import Answer, Desk, Download, Page, Redirect, Visit
from llmgateway.portal.words import later

EXPORTED_RECORDS = 1000


async def show(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    values = {
        "error": error, "form": visit.form, "sessions": await desk.sessions.of_user(visit.me.id),
        "has_password": await desk.accounts.has(visit.me.id), "terms": desk.control.agreements.terms,
        "accepted": await desk.control.agreements.of(visit.me.id),
    }  # fmt: skip
    return Page("account.html", values, status_of(error))


async def change_profile(desk: Desk, visit: Visit) -> Answer:
    """The name is all that people may say of themselves."""
    try:
        changes = UserChanges(name=visit.form.text("name") or None)
        await desk.control.people.change(visit.actor, visit.me.id, changes)
    except InvalidRequest as error:
        return await show(desk, visit, error)
    return Redirect("account", said="changed")


async def change_password(desk: Desk, visit: Visit) -> Answer:
    old, new = Secret(visit.form.raw("old")), Secret(visit.form.raw("new"))
    try:
        await desk.accounts.change_password(visit.actor, visit.me.id, old, new)
    except (InvalidRequest, OverLimit) as error:
        return await show(desk, visit, error)
    await desk.sessions.end_all(visit.me.id, but=visit.current)
    return Redirect("account", said="password")


async def end_session(desk: Desk, visit: Visit) -> Answer:
    handle = visit.form.text("session")
    if handle == visit.current.handle:
        return await sign_out(desk, visit)
    async with desk.control.audit.change(visit.actor, "sessions.end", visit.me.id) as entry:
        if handle not in {session.handle for session in await desk.sessions.of_user(visit.me.id)}:
            raise NotFound(later("That session is over already."))
        await entry.accept({"which": "another"})
        await desk.sessions.end_one(visit.me.id, handle)
    return Redirect("account", said="ended")


async def end_others(desk: Desk, visit: Visit) -> Answer:
    async with desk.control.audit.change(visit.actor, "sessions.end", visit.me.id) as entry:
        await entry.accept({"which": "others"})
        await desk.sessions.end_all(visit.me.id, but=visit.current)
    return Redirect("account", said="others-ended")


async def ask_forget(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    return Page("account-forget.html", {"error": error, "form": visit.form}, status_of(error))


async def forget(desk: Desk, visit: Visit) -> Answer:
    """The session that asked goes with all others."""
    try:
        await desk.erasure.forget(visit.actor, visit.me.id, typed=visit.form.text("typed"))
    except (InvalidRequest, Conflict) as error:
        return await ask_forget(desk, visit, error)
    return Redirect("sign-in", said="forgotten", ends=True)


async def export(desk: Desk, visit: Visit) -> Answer:
    """All that is kept of a person; prompts and answers are not."""
    user = visit.me.id
    keys, _ = await desk.control.keys.page({"user": user}, limit=PAGE)
    usage = await desk.control.reports.usage(UsageAsk(user=user, by="day,model,key"))
    records, _ = await desk.control.reports.records(RecordsAsk(user=user, limit=EXPORTED_RECORDS))
    sessions = [
        {"began_at": written(one.began_at), "seen_at": written(one.seen_at), "until": written(one.until),
         "how": one.how, "browser": one.agent, "address": one.address}
        for one in await desk.sessions.of_user(user)
    ]  # fmt: skip
    told = {
        "exported_at": written(desk.clock.now()), "user": user_view(visit.me),
        "has_password": await desk.accounts.has(user), "keys": [key_view(key) for key in keys],
        "terms_accepted": [
            {"version": one.version, "at": written(one.at)} for one in await desk.control.agreements.of(user)
        ],
        "sessions": sessions, "usage": [usage_view(row) for row in usage.rows],
        "newest_requests": [record_view(record) for record in records],
    }  # fmt: skip
    body = msgspec.json.format(msgspec.json.encode(told, enc_hook=plain), indent=2)
    return Download(body, "application/json", "my-data.json")
