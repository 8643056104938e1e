"""What operators tell everybody: a line at the head of every page, from one moment until another."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.control.audit import Actor
from llmgateway.control.changes import document_of, each, given, need, no_such, revise
from llmgateway.control.checks import name_in
from llmgateway.control.ground import Ground
from llmgateway.control.moments import in_utc, now_of
from llmgateway.control.plain import view_of
from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.ports import Document

Level = Literal["info", "warning", "critical"]
LONGEST = 500  # characters
ORDER: Sequence[Level] = ("critical", "warning", "info")


class Announcement(Struct, frozen=True, kw_only=True):
    """Shown from `starts_at` on and, where there is one, until `ends_at`."""

    id: str
    created_at: datetime
    text: str
    level: Level = "info"
    starts_at: datetime
    ends_at: datetime | None = None
    revision: int = 0

    def is_shown(self, now: datetime) -> bool:
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)


class NewAnnouncement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From now on unless it says when."""

    text: str
    level: Level = "info"
    starts_at: datetime | None = None
    ends_at: datetime | None = None


class AnnouncementChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    text: str | UnsetType = UNSET
    level: Level | UnsetType = UNSET
    starts_at: datetime | UnsetType = UNSET
    ends_at: datetime | UnsetType | None = UNSET


class AnnouncementView(Struct, frozen=True, kw_only=True):
    """An announcement as operators see it."""

    id: str
    created_at: datetime
    text: str
    level: Level
    starts_at: datetime
    ends_at: datetime | None
    state: Literal["planned", "shown", "over"]


def announcement_view(one: Announcement, now: datetime) -> dict[str, Any]:
    """As JSON."""
    fields = {name: getattr(one, name) for name in AnnouncementView.__struct_fields__ if name != "state"}
    state: Literal["planned", "shown", "over"] = "planned" if now < one.starts_at else "over"
    return view_of(AnnouncementView(state="shown" if one.is_shown(now) else state, **fields))


class Announcements:
    def __init__(self, ground: Ground) -> None:
        self._store = ground.store
        self._audit = ground.audit
        self._clock = ground.clock

    async def create(self, actor: Actor, new: NewAnnouncement) -> Announcement:
        now = now_of(self._clock)
        id = f"{now:%Y%m%d%H%M%S}-{secrets.token_hex(4)}"
        async with self._audit.change(actor, "announcements.create", id) as entry:
            made = Announcement(
                id=id, created_at=now, text=name_in(new.text, "text", LONGEST), level=new.level,
                starts_at=now if new.starts_at is None else in_utc(new.starts_at, "starts_at"),
                ends_at=None if new.ends_at is None else in_utc(new.ends_at, "ends_at"),
            )  # fmt: skip
            _refuse_backwards(made.starts_at, made.ends_at)
            said = ("text", "level", "starts_at", "ends_at")
            await entry.accept({name: getattr(made, name) for name in said})
            await self._store.insert("announcements", document_of(made))
        return made

    async def get(self, id: str) -> Announcement:
        return _announcement(await need(self._store, "announcements", id))

    async def current(self) -> list[Announcement]:
        """What is to be shown now, the gravest first."""
        now = self._clock.now()
        shown = [one for one in await self.all() if one.is_shown(now)]
        return sorted(shown, key=lambda one: ORDER.index(one.level))

    async def all(self) -> list[Announcement]:
        """Newest first: there are never many."""
        found = [_announcement(document) async for document in each(self._store, "announcements", {})]
        return found[::-1]

    async def page(self, *, limit: int, after: str | None = None) -> tuple[list[Announcement], str | None]:
        """Newest first."""
        rest = [one for one in await self.all() if after is None or one.id < after]
        return rest[:limit], rest[limit - 1].id if len(rest) > limit else None

    async def change(self, actor: Actor, id: str, changes: AnnouncementChanges) -> Announcement:
        fields = _checked(changes)

        def change(document: Document) -> Document:
            both = {**document, **fields}
            _refuse_backwards(both["starts_at"], both["ends_at"])
            return fields

        async with self._audit.change(actor, "announcements.change", id) as entry:
            document, _ = await revise(self._store, "announcements", entry, change, fields)
        return _announcement(document)

    async def end(self, actor: Actor, id: str) -> Announcement:
        """Now: it is shown no more. What is over stays as it is."""
        one, now = await self.get(id), now_of(self._clock)
        if now <= one.starts_at:
            raise Conflict("This announcement has not begun; delete it instead.")
        if not one.is_shown(now):
            return one
        return await self.change(actor, id, AnnouncementChanges(ends_at=now))

    async def delete(self, actor: Actor, id: str) -> None:
        async with self._audit.change(actor, "announcements.delete", id) as entry:
            await need(self._store, "announcements", id)
            await entry.accept({})
            if not await self._store.delete("announcements", id):
                raise no_such("announcements", id)


def _checked(changes: AnnouncementChanges) -> dict[str, Any]:
    """The fields as they are stored."""
    fields = given(changes)
    if "text" in fields:
        fields["text"] = name_in(fields["text"], "text", LONGEST)
    for name in ("starts_at", "ends_at"):
        if fields.get(name) is not None:
            fields[name] = in_utc(fields[name], name)
    return fields


def _refuse_backwards(starts_at: datetime, ends_at: datetime | None) -> None:
    if ends_at is not None and ends_at <= starts_at:
        raise InvalidRequest("It must end after it begins.", param="ends_at")


def _announcement(document: Document) -> Announcement:
    return msgspec.convert(document, Announcement)
