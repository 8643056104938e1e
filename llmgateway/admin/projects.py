"""Projects in the operators' API: their life, their members, their budget, and their keys."""

from typing import Any

from msgspec import Struct

from llmgateway.admin.operations import Call, Deleted, Desk, Listed, Nothing, PageAsk, issued_key
from llmgateway.control.keys import key_view
from llmgateway.control.people import user_view
from llmgateway.control.projects import NewProject, NewServiceKey, ProjectChanges
from llmgateway.domain.keys import State as KeyState
from llmgateway.domain.projects import Project


class Member(Struct, frozen=True, forbid_unknown_fields=True):
    """Of a project; in the body where one is added, in the query where one is taken out."""

    user: str


class ProjectKeysAsk(PageAsk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state: KeyState | None = None


async def create_project(desk: Desk, call: Call, asked: NewProject) -> object:
    return await _view(desk, await desk.control.projects.create(call.actor, asked))


async def list_projects(desk: Desk, call: Call, asked: PageAsk) -> Listed:
    found, following = await desk.control.projects.page(limit=asked.limit, after=asked.after)
    return Listed(list(await desk.control.projects.views(found)), following)


async def get_project(desk: Desk, call: Call, asked: Nothing) -> object:
    return await _view(desk, await desk.control.projects.get(call.id))


async def change_project(desk: Desk, call: Call, asked: ProjectChanges) -> object:
    return await _view(desk, await desk.control.projects.change(call.actor, call.id, asked))


async def end_project(desk: Desk, call: Call, asked: Nothing) -> object:
    return await _view(desk, await desk.control.projects.end(call.actor, call.id))


async def delete_project(desk: Desk, call: Call, asked: Nothing) -> object:
    await desk.control.projects.delete(call.actor, call.id)
    return Deleted(id=call.id, deleted=True)


async def list_members(desk: Desk, call: Call, asked: PageAsk) -> Listed:
    found, following = await desk.control.projects.member_page(call.id, limit=asked.limit, after=asked.after)
    return Listed([user_view(user) for user in found], following)


async def add_member(desk: Desk, call: Call, asked: Member) -> object:
    return user_view(await desk.control.projects.add_member(call.actor, call.id, asked.user))


async def remove_member(desk: Desk, call: Call, asked: Member) -> object:
    return user_view(await desk.control.projects.remove_member(call.actor, call.id, asked.user))


async def list_project_keys(desk: Desk, call: Call, asked: ProjectKeysAsk) -> Listed:
    """Those of members, too, that are charged to it."""
    await desk.control.projects.get(call.id)
    where: dict[str, str | None] = {"project": call.id}
    if asked.state is not None:
        where["state"] = asked.state
    found, following = await desk.control.keys.page(where, limit=asked.limit, after=asked.after)
    return Listed([key_view(key) for key in found], following)


async def create_project_key(desk: Desk, call: Call, asked: NewServiceKey) -> object:
    return issued_key(await desk.control.projects.create_key(call.actor, call.id, asked))


async def _view(desk: Desk, project: Project) -> dict[str, Any]:
    (view,) = await desk.control.projects.views([project])
    return view
