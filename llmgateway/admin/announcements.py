"""Announcements in the operators' API: what stands at the head of every page of the portal."""

from llmgateway.admin.operations import Call, Deleted, Desk, Listed, Nothing, PageAsk
from llmgateway.control.announcements import (
    Announcement,
    AnnouncementChanges,
    NewAnnouncement,
    announcement_view,
)


async def create_announcement(desk: Desk, call: Call, asked: NewAnnouncement) -> object:
    return _view(desk, await desk.control.announcements.create(call.actor, asked))


async def list_announcements(desk: Desk, call: Call, asked: PageAsk) -> Listed:
    found, following = await desk.control.announcements.page(limit=asked.limit, after=asked.after)
    return Listed([_view(desk, one) for one in found], following)


async def get_announcement(desk: Desk, call: Call, asked: Nothing) -> object:
    return _view(desk, await desk.control.announcements.get(call.id))


async def change_announcement(desk: Desk, call: Call, asked: AnnouncementChanges) -> object:
    return _view(desk, await desk.control.announcements.change(call.actor, call.id, asked))


async def end_announcement(desk: Desk, call: Call, asked: Nothing) -> object:
    return _view(desk, await desk.control.announcements.end(call.actor, call.id))


async def delete_announcement(desk: Desk, call: Call, asked: Nothing) -> object:
    await desk.control.announcements.delete(call.actor, call.id)
    return Deleted(id=call.id, deleted=True)


def _view(desk: Desk, one: Announcement) -> object:
    return announcement_view(one, desk.clock.now())
