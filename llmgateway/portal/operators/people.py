"""All people: found, and added by hand."""

from llmgateway.control.people import NewUser
from llmgateway.control.projects import SERVICE
from llmgateway.control.reports import UsageAsk
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest
from llmgateway.domain.people import Role, User
from llmgateway.domain.ports import UsageRow
from llmgateway.portal.operators.listing import found, holds
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.spans import lately
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit

ROLES: tuple[Role, ...] = ("user", "operator", "admin")
STATES = ("active", "suspended", "gone")
FILTERS = ("state", "project")


async def show(desk: Desk, visit: Visit) -> Answer:
    query = {name: visit.asked(name) for name in ("q", "role", *FILTERS) if visit.asked(name)}
    where: dict[str, str | None] = {name: query[name] for name in FILTERS if name in query}

    def matches(user: User) -> bool:
        if user.id.startswith(SERVICE):  # whom keys of projects belong to: nobody
            return False
        if user.state == "gone" and "state" not in query:
            return False
        has_role = "role" not in query or query["role"] in user.roles
        return has_role and holds(query.get("q", ""), user.id, user.name, user.email)

    people, following = await found(
        lambda limit, after: desk.control.people.page(where, limit=limit, after=after),
        matches, visit.asked("after") or None,
    )  # fmt: skip
    values = {
        "people": people, "usage": await _usage(desk), "query": query, "following": following,
        "is_first": not visit.asked("after"), "roles": ROLES, "states": STATES,
    }  # fmt: skip
    return Page("operators/people.html", values)


async def show_new(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    return Page("operators/person-new.html", {"error": error, "form": visit.form}, status_of(error))


async def create(desk: Desk, visit: Visit) -> Answer:
    """With the role `user`; an administrator gives others on the person's page."""
    form = visit.form
    new = NewUser(
        id=form.text("id"), name=form.text("name") or None, email=form.text("email") or None,
        project=form.text("project") or None,
    )  # fmt: skip
    try:
        user = await desk.control.people.create(visit.actor, new)
    except (InvalidRequest, Conflict) as error:
        return await show_new(desk, visit, error)
    return Redirect("op-person", {"id": user.id}, said="created")


async def _usage(desk: Desk) -> dict[str | None, UsageRow]:
    report = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, by="user"))
    return {row.group["user"]: row for row in report.rows}
