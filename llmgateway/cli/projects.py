"""`llmgateway projects`: made, changed, given members and a budget, and ended."""

from datetime import datetime

from msgspec import UNSET, UnsetType

from llmgateway.cli.keys import moment_in, say_keys
from llmgateway.cli.limits import limits_of
from llmgateway.cli.opened import ACTOR, Opened, all_of, opened
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import say, say_done, say_fields, say_json, say_rows
from llmgateway.control.keys import key_view
from llmgateway.control.people import user_view
from llmgateway.control.projects import NewProject, ProjectChanges
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.ports import SystemClock
from llmgateway.domain.projects import Project

COLUMNS = ("id", "name", "responsible", "state", "expires_at", "limits", "created_at")
MEMBER_COLUMNS = ("id", "name", "email", "state")
NEVER = "never"


async def listing(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        rows = await here.control.projects.views(await all_of(here.control.projects.page))
    none = "There are no projects; make one with: llmgateway projects create"
    say_rows(rows, COLUMNS, as_json=arguments.as_json, none=none)
    return 0


async def show(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        (view,) = await here.control.projects.views([await here.control.projects.get(arguments.id)])
        members = [user_view(user) for user in await here.control.projects.members(arguments.id)]
        keys = [key_view(key) for key in await all_of(here.control.keys.page, {"project": arguments.id})]
    if arguments.as_json:
        say_json({**view, "members": members, "keys": keys})
        return 0
    say_fields(view, as_json=False)
    say()
    say_rows(members, MEMBER_COLUMNS, as_json=False, none="No members.")
    say()
    say_keys(keys, as_json=False, none="No keys.")
    return 0


async def create(arguments: Arguments) -> int:
    limits = limits_of(arguments.limits) if arguments.limits else None
    async with opened(arguments) as here:
        new = NewProject(
            id=arguments.id, name=arguments.name, responsible=arguments.responsible,
            expires_at=_expiry(arguments, here), limits=limits,
        )  # fmt: skip
        project = await here.control.projects.create(ACTOR, new)
        return await _tell(here, project, "is there", arguments)


async def change(arguments: Arguments) -> int:
    """Only what is named; an empty word takes the responsible person away."""
    named = (arguments.name, arguments.responsible, arguments.expires)
    if not arguments.limits and all(value is None for value in named):
        raise InvalidRequest("Say what to change: --name, --responsible, --expires or --limit.")
    limits = limits_of(arguments.limits) if arguments.limits else UNSET
    async with opened(arguments) as here:
        ends: datetime | UnsetType | None = UNSET
        if arguments.expires is not None:
            ends = _expiry(arguments, here)
        who = arguments.responsible
        changes = ProjectChanges(
            name=UNSET if arguments.name is None else arguments.name, expires_at=ends, limits=limits,
            responsible=UNSET if who is None else who or None,
        )  # fmt: skip
        project = await here.control.projects.change(ACTOR, arguments.id, changes)
        return await _tell(here, project, "is changed", arguments)


async def end(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        project = await here.control.projects.end(ACTOR, arguments.id)
        return await _tell(here, project, "has ended: all its keys are refused", arguments)


async def delete(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        await here.control.projects.delete(ACTOR, arguments.id)
    words = f"The project {arguments.id} is deleted. What it used stays in the ledger."
    say_done(words, {"id": arguments.id, "deleted": True}, as_json=arguments.as_json)
    return 0


async def members(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        await here.control.projects.get(arguments.id)
        rows = [user_view(user) for user in await here.control.projects.members(arguments.id)]
    none = f"Nobody is a member; add somebody with: llmgateway projects add-member {arguments.id} USER"
    say_rows(rows, MEMBER_COLUMNS, as_json=arguments.as_json, none=none)
    return 0


async def keys(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        await here.control.projects.get(arguments.id)
        rows = [key_view(key) for key in await all_of(here.control.keys.page, {"project": arguments.id})]
    none = f"There are no keys; make one with: llmgateway keys create --project {arguments.id} --name NAME"
    say_keys(rows, as_json=arguments.as_json, none=none)
    return 0


async def add_member(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        user = await here.control.projects.add_member(ACTOR, arguments.id, arguments.user)
    words = f"{user.id} is a member of {arguments.id}; new keys are charged to it, old ones are not."
    say_done(words, user_view(user), as_json=arguments.as_json)
    return 0


async def remove_member(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        user = await here.control.projects.remove_member(ACTOR, arguments.id, arguments.user)
    words = f"{user.id} is no member of {arguments.id} any more; keys made before are still charged to it."
    say_done(words, user_view(user), as_json=arguments.as_json)
    return 0


def _expiry(arguments: Arguments, here: Opened) -> datetime | None:
    if arguments.expires in (None, NEVER):
        return None
    return moment_in(arguments.expires, here.settings.time_zone, SystemClock.now())


async def _tell(here: Opened, project: Project, words: str, arguments: Arguments) -> int:
    (view,) = await here.control.projects.views([project])
    if arguments.as_json:
        say_json(view)
        return 0
    say(f"The project {project.id} {words}.\n")
    say_fields(view, as_json=False)
    return 0
