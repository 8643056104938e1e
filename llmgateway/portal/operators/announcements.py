"""What operators tell everybody, at the head of every page."""

from typing import cast

from llmgateway.control.announcements import (
    ORDER,
    Announcement,
    AnnouncementChanges,
    Level,
    NewAnnouncement,
)
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest
from llmgateway.portal.moments import as_local, asked_moment
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit

LEVELS: tuple[Level, ...] = cast(tuple[Level, ...], tuple(ORDER[::-1]))
FIELDS = ("text", "level", "starts", "ends")


async def show(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    values = {
        "listed": await desk.control.announcements.all(), "levels": LEVELS, "error": error,
        "written": {name: visit.form.text(name) for name in FIELDS},
    }  # fmt: skip
    return Page("operators/announcements.html", values, status_of(error))


async def create(desk: Desk, visit: Visit) -> Answer:
    try:
        new = NewAnnouncement(
            text=visit.form.text("text"), level=_level(visit),
            starts_at=asked_moment(desk, visit, "starts"), ends_at=asked_moment(desk, visit, "ends"),
        )  # fmt: skip
        await desk.control.announcements.create(visit.actor, new)
    except InvalidRequest as error:
        return await show(desk, visit, _of_field(error))
    return Redirect("op-announcements", said="created")


async def show_one(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    one = await _which(desk, visit)
    written = {
        "text": one.text, "level": one.level, "starts": as_local(desk, one.starts_at),
        "ends": as_local(desk, one.ends_at),
    }  # fmt: skip
    if error is not None:
        written = {name: visit.form.text(name) for name in FIELDS}
    values = {"one": one, "levels": LEVELS, "error": error, "written": written}
    return Page("operators/announcement.html", values, status_of(error))


async def change(desk: Desk, visit: Visit) -> Answer:
    one = await _which(desk, visit)
    try:
        changes = AnnouncementChanges(
            text=visit.form.text("text"), level=_level(visit),
            starts_at=asked_moment(desk, visit, "starts") or one.starts_at,
            ends_at=asked_moment(desk, visit, "ends"),
        )  # fmt: skip
        await desk.control.announcements.change(visit.actor, one.id, changes)
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, _of_field(error))
    return Redirect("op-announcements", said="changed")


async def end(desk: Desk, visit: Visit) -> Answer:
    try:
        await desk.control.announcements.end(visit.actor, (await _which(desk, visit)).id)
    except Conflict as error:
        return await show(desk, visit, error)
    return Redirect("op-announcements", said="announcement-ended")


async def ask_delete(desk: Desk, visit: Visit) -> Answer:
    return Page("operators/announcement-delete.html", {"one": await _which(desk, visit)})


async def delete(desk: Desk, visit: Visit) -> Answer:
    await desk.control.announcements.delete(visit.actor, (await _which(desk, visit)).id)
    return Redirect("op-announcements", said="deleted")


async def _which(desk: Desk, visit: Visit) -> Announcement:
    return await desk.control.announcements.get(visit.request.path_params["id"])


def _level(visit: Visit) -> Level:
    wanted = visit.form.text("level")
    return next((level for level in LEVELS if level == wanted), "info")


def _of_field(error: GatewayError) -> GatewayError:
    """By the name that the field has in the form."""
    if error.param == "ends_at":
        error.param = "ends"
    return error
