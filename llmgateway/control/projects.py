"""Projects: made, changed, ended; their members, and keys that belong to no single person.

The budget of a project is its limits, which `control/limits.py` keeps. Its own keys belong to a user of the
project's, who cannot sign in; when a project ends, all its keys do.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.control.audit import Actor
from llmgateway.control.changes import announce, document_of, each, given, need, no_such, revise
from llmgateway.control.checks import limits_in, name_in, optional_name, project_id_in
from llmgateway.control.ground import Ground
from llmgateway.control.keys import Issued, Keys, NewKey
from llmgateway.control.limits import LimitSets, Subject
from llmgateway.control.moments import in_utc, now_of
from llmgateway.control.people import NewUser, People, UserChanges
from llmgateway.control.plain import view_of
from llmgateway.domain.errors import Conflict, InvalidRequest, NotFound, shown
from llmgateway.domain.limits import Limits
from llmgateway.domain.people import User
from llmgateway.domain.policy import project_of
from llmgateway.domain.ports import Change, Document
from llmgateway.domain.projects import Project

SERVICE = "service:"  # before a project's id: the user whom its own keys belong to


class NewProject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits` are its budget."""

    id: str
    name: str | None = None
    responsible: str | None = None
    expires_at: datetime | None = None
    limits: Limits | None = None


class ProjectChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be changed; null takes a value away. `limits` replaces the whole set; null puts back what the
    settings say."""

    name: str | UnsetType = UNSET
    responsible: str | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    limits: Limits | UnsetType | None = UNSET


class NewServiceKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    models: list[str] | None = None
    expires_at: datetime | None = None
    limits: Limits | None = None


class ProjectView(Struct, frozen=True, kw_only=True):
    """A project as operators see it; `limits` are those that hold."""

    id: str
    created_at: datetime
    name: str
    responsible: str | None
    expires_at: datetime | None
    state: Literal["active", "ended"]
    limits: Limits


def service_user(project_id: str) -> str:
    """Whom the project's own keys and their records belong to."""
    return f"{SERVICE}{project_id}"


class Projects:
    """A user is a member of at most one project: the one that their next keys are charged to."""

    def __init__(self, ground: Ground, people: People, keys: Keys, limits: LimitSets) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._people = people
        self._keys = keys
        self._limits = limits

    async def create(self, actor: Actor, new: NewProject) -> Project:
        project = Project(
            id=project_id_in(new.id, "id"), created_at=now_of(self._clock),
            name=optional_name(new.name, "name") or name_in(new.id, "id"),
            responsible=optional_name(new.responsible, "responsible", 200),
            expires_at=None if new.expires_at is None else in_utc(new.expires_at, "expires_at"),
        )  # fmt: skip
        limits = limits_in(new.limits)
        async with self._audit.change(actor, "projects.create", project.id) as entry:
            if await self._store.get("projects", project.id) is not None:
                raise _taken(project.id)
            await self._need_responsible(project.responsible)
            said = ("name", "responsible", "expires_at")
            await entry.accept({name: getattr(project, name) for name in said})
            try:
                await self._store.insert("projects", document_of(project))
            except Conflict:
                raise _taken(project.id) from None
            await self._follow(actor, project.id, None, project.expires_at)
        if new.limits is not None:
            await self._limits.put(actor, _budget(project.id), limits)
        return project

    async def get(self, project_id: str) -> Project:
        return _project(await need(self._store, "projects", project_id))

    async def unmade(self, names: Iterable[str]) -> list[str]:
        """Those of these names that only stand in users, keys or settings."""
        made = {project["id"] async for project in each(self._store, "projects", {})}
        return [name for name in names if name not in made]

    async def page(self, *, limit: int, after: str | None = None) -> tuple[Sequence[Project], str | None]:
        """By id."""
        page = await self._store.find("projects", {}, limit=limit, after=after)
        return [_project(document) for document in page.data], page.next

    async def views(self, projects: Sequence[Project]) -> list[dict[str, Any]]:
        """As JSON."""
        now = self._clock.now()
        found = await self._limits.all_of([_budget(one.id) for one in projects])
        return [
            view_of(
                ProjectView(
                    id=one.id, created_at=one.created_at, name=one.name, responsible=one.responsible,
                    expires_at=one.expires_at, state="ended" if one.has_ended(now) else "active",
                    limits=limits.effective,
                )
            )
            for one, limits in zip(projects, found, strict=True)
        ]  # fmt: skip

    async def change(self, actor: Actor, project_id: str, changes: ProjectChanges) -> Project:
        async with self._audit.change(actor, "projects.change", project_id) as entry:
            before = await self.get(project_id)
            fields, limits = _checked_changes(changes)
            await self._need_responsible(fields.get("responsible"))
            document, _ = await revise(self._store, "projects", entry, lambda _: fields, fields)
        project = _project(document)
        if project.expires_at != before.expires_at:
            await self._follow(actor, project_id, before.expires_at, project.expires_at)
        if limits is None:
            await self._limits.delete(actor, _budget(project_id))
        elif limits is not UNSET:
            await self._limits.put(actor, _budget(project_id), limits)
        return project

    async def end(self, actor: Actor, project_id: str) -> Project:
        """Now: its keys are refused from now on. What has ended stays as it is."""
        project, now = await self.get(project_id), now_of(self._clock)
        if project.has_ended(now):
            return project
        return await self.change(actor, project_id, ProjectChanges(expires_at=now))

    async def delete(self, actor: Actor, project_id: str) -> None:
        """Only one that nobody and nothing belongs to; what was used stays in the ledger."""
        async with self._audit.change(actor, "projects.delete", project_id) as entry:
            await need(self._store, "projects", project_id)
            keys = await self._store.find("keys", {"project": project_id}, limit=1)
            if keys.data or await self.members(project_id):
                raise Conflict("This project has members or keys; end it instead.")
            await entry.accept({})
            if not await self._store.delete("projects", project_id):
                raise no_such("projects", project_id)

    # --- members ---

    async def members(self, project_id: str) -> list[User]:
        """By id, without the user of its own keys."""
        found = each(self._store, "users", {"project": project_id})
        return [msgspec.convert(one, User) async for one in found if one["id"] != service_user(project_id)]

    async def member_page(
        self, project_id: str, *, limit: int, after: str | None = None
    ) -> tuple[list[User], str | None]:
        """The same, a page at a time; without the user of its own keys one may have one less."""
        await self.get(project_id)
        page = await self._store.find("users", {"project": project_id}, limit=limit, after=after)
        people = (msgspec.convert(one, User) for one in page.data)
        return [user for user in people if user.id != service_user(project_id)], page.next

    async def add_member(self, actor: Actor, project_id: str, user_id: str) -> User:
        """From another project they are taken away."""
        await self.get(project_id)
        await self._people.get(user_id)
        return await self._people.change(actor, user_id, UserChanges(project=project_id))

    async def remove_member(self, actor: Actor, project_id: str, user_id: str) -> User:
        user = await self._people.get(user_id)
        if user.project != project_id:
            raise NotFound(f"There is no member '{shown(user_id)}' of this project.")
        if user.provider is not None and project_of(user.grants) == project_id:
            raise Conflict("The policy puts this person into the project; a rule has to change.")
        return await self._people.change(actor, user_id, UserChanges(project=None))

    # --- its own keys ---

    async def create_key(self, actor: Actor, project_id: str, new: NewServiceKey) -> Issued:
        project, owner = await self.get(project_id), service_user(project_id)
        try:
            await self._people.get(owner)
        except NotFound:
            user = NewUser(id=owner, name=project.name, project=project.id)
            await self._people.create(actor, user)
        return await self._keys.create(
            actor,
            NewKey(
                user=owner, name=new.name, models=new.models, expires_at=new.expires_at, limits=new.limits,
                project=project.id,
            ),
        )  # fmt: skip

    async def _need_responsible(self, user_id: str | None) -> None:
        if user_id is None:
            return
        try:
            await self._people.get(user_id)
        except NotFound:
            message = f"There is no user '{shown(user_id)}'."
            raise InvalidRequest(message, param="responsible") from None

    async def _follow(
        self, actor: Actor, project_id: str, before: datetime | None, after: datetime | None
    ) -> None:
        """Keys end with the project: what would outlive it is cut, and what was cut gets the new end."""
        if before == after:
            return

        def change(key: Document) -> Document:
            ends = key["expires_at"]
            is_cut = before is not None and ends == before
            outlives = after is not None and (ends is None or ends > after)
            return {"expires_at": after} if is_cut or outlives else {}

        async for key in each(self._store, "keys", {"project": project_id}):
            if key["state"] == "revoked" or not change(key):
                continue
            with suppress(NotFound):  # it was being made, and is taken back
                async with self._audit.change(actor, "keys.change", key["id"]) as entry:
                    _, has_changed = await revise(self._store, "keys", entry, change, {"expires_at": after})
                if has_changed:
                    await announce(self._state, [Change("keys", key["id"])])


def _checked_changes(changes: ProjectChanges) -> tuple[dict[str, Any], Limits | UnsetType | None]:
    """The fields as they are stored, and the limits, which are stored elsewhere."""
    fields = given(changes)
    limits = fields.pop("limits", UNSET)
    if isinstance(limits, Limits):
        limits_in(limits)
    if "name" in fields:
        fields["name"] = name_in(fields["name"], "name")
    if "responsible" in fields:
        fields["responsible"] = optional_name(fields["responsible"], "responsible", 200)
    if fields.get("expires_at") is not None:
        fields["expires_at"] = in_utc(fields["expires_at"], "expires_at")
    return fields, limits


def _budget(project_id: str) -> Subject:
    return Subject("project", project_id)


def _taken(project_id: str) -> Conflict:
    return Conflict(f"There is a project '{shown(project_id)}' already.", param="id")


def _project(document: Document) -> Project:
    return msgspec.convert(document, Project)
