"""Projects: their people, budget, own keys, and end."""

from llmgateway.control.limits import LimitSet, Subject
from llmgateway.control.projects import NewProject, NewServiceKey, ProjectChanges, service_user
from llmgateway.control.reports import UsageAsk
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotFound
from llmgateway.domain.projects import Project
from llmgateway.portal.keys import is_new
from llmgateway.portal.moments import as_last_day, asked_last_day
from llmgateway.portal.operators.listing import PER_PAGE
from llmgateway.portal.operators.rights import ensure_may_change
from llmgateway.portal.overview import tokens_by_day
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.spans import lately
from llmgateway.portal.standings import standings_of
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit


async def show(desk: Desk, visit: Visit) -> Answer:
    after = visit.asked("after") or None
    projects, following = await desk.control.projects.page(limit=PER_PAGE, after=after)
    report = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, by="project"))
    usage = {row.group["project"]: row for row in report.rows}
    named = await desk.control.projects.unmade(name for name in usage if name) if after is None else []
    values = {
        "projects": projects, "usage": usage, "following": following, "is_first": after is None,
        "unregistered": named,
    }  # fmt: skip
    return Page("operators/projects.html", values)


async def show_new(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    values = {"error": error, "form": visit.form, "wanted": visit.form.text("id") or visit.asked("id")}
    return Page("operators/project-new.html", values, status_of(error))


async def create(desk: Desk, visit: Visit) -> Answer:
    form = visit.form
    try:
        new = NewProject(
            id=form.text("id"), name=form.text("name") or None,
            responsible=form.text("responsible") or None, expires_at=asked_last_day(desk, visit, "expires"),
        )  # fmt: skip
        project = await desk.control.projects.create(visit.actor, new)
    except (InvalidRequest, Conflict) as error:
        return await show_new(desk, visit, error)
    return Redirect("op-project", {"id": project.id}, said="created")


async def show_one(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    project = await _which(desk, visit)
    limits: LimitSet = await desk.control.limits.get(Subject("project", project.id))
    keys, _ = await desk.control.keys.page({"user": service_user(project.id)}, limit=PER_PAGE)
    total = await desk.control.reports.usage(UsageAsk(start=lately(desk).start, project=project.id))
    now = desk.clock.now()
    values = {
        "project": project, "error": error, "form": visit.form, "limits": limits, "keys": keys,
        "standings": await standings_of(desk, limits.scopes),
        "members": await desk.control.projects.members(project.id),
        "chart": await tokens_by_day(desk, visit, lately(desk), {"project": project.id}),
        "total": total.rows[0] if total.rows else None, "service": service_user(project.id),
        "is_over": project.has_ended(now),
        "last_day": as_last_day(desk, project.expires_at),
        "models": [model.id for model in await desk.control.models.catalog()],
    }  # fmt: skip
    return Page("operators/project.html", values, status_of(error))


async def change(desk: Desk, visit: Visit) -> Answer:
    project, form = await _which(desk, visit), visit.form
    try:
        day = asked_last_day(desk, visit, "expires")
        is_same = form.text("expires") == as_last_day(desk, project.expires_at)
        changes = ProjectChanges(
            name=form.text("name"), responsible=form.text("responsible") or None,
            expires_at=project.expires_at if is_same else day,
        )  # fmt: skip
        await desk.control.projects.change(visit.actor, project.id, changes)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    return Redirect("op-project", {"id": project.id}, said="changed")


async def add_member(desk: Desk, visit: Visit) -> Answer:
    project = await _which(desk, visit)
    await ensure_may_change(desk, visit, visit.form.text("member"))
    try:
        await desk.control.projects.add_member(visit.actor, project.id, visit.form.text("member"))
    except NotFound as error:
        return await show_one(desk, visit, InvalidRequest(error.message, param="member"))
    return Redirect("op-project", {"id": project.id}, said="member")


async def remove_member(desk: Desk, visit: Visit) -> Answer:
    project = await _which(desk, visit)
    await ensure_may_change(desk, visit, visit.form.text("member"))
    await desk.control.projects.remove_member(visit.actor, project.id, visit.form.text("member"))
    return Redirect("op-project", {"id": project.id}, said="no-member")


async def create_key(desk: Desk, visit: Visit) -> Answer:
    project, form = await _which(desk, visit), visit.form
    try:
        new = NewServiceKey(
            name=form.text("key_name"), models=form.all("models") or None,
            expires_at=asked_last_day(desk, visit, "key_expires"),
        )  # fmt: skip
        if not await is_new(desk, visit):
            return Redirect("op-project", {"id": project.id}, said="already")
        issued = await desk.control.projects.create_key(visit.actor, project.id, new)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    values = {"key": issued.key, "token": issued.token.reveal(), "back": "op-project", "back_id": project.id}
    return Page("operators/key-shown.html", values, 201)


async def ask_end(desk: Desk, visit: Visit) -> Answer:
    return Page("operators/project-end.html", {"project": await _which(desk, visit)})


async def end(desk: Desk, visit: Visit) -> Answer:
    project = await _which(desk, visit)
    await desk.control.projects.end(visit.actor, project.id)
    return Redirect("op-project", {"id": project.id}, said="project-ended")


async def delete(desk: Desk, visit: Visit) -> Answer:
    project = await _which(desk, visit)
    try:
        await desk.control.projects.delete(visit.actor, project.id)
    except Conflict as error:
        return await show_one(desk, visit, error)
    return Redirect("op-projects", said="deleted")


async def _which(desk: Desk, visit: Visit) -> Project:
    return await desk.control.projects.get(visit.request.path_params["id"])
