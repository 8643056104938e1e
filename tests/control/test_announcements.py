"""Announcements: shown from one moment until another, the gravest first."""

from datetime import timedelta

import pytest

from llmgateway.control.announcements import AnnouncementChanges, NewAnnouncement
from llmgateway.domain.errors import InvalidRequest, NotFound
from tests.control.desk import ANN, Desk


async def shown(desk: Desk) -> list[str]:
    return [one.text for one in await desk.control.announcements.current()]


async def test_they_come_and_go_by_the_clock(desk: Desk) -> None:
    now, announcements = desk.clock.now(), desk.control.announcements
    await announcements.create(ANN, NewAnnouncement(text="always"))
    tomorrow, later = now + timedelta(days=1), now + timedelta(days=2)
    await announcements.create(
        ANN, NewAnnouncement(text="tomorrow", level="critical", starts_at=tomorrow, ends_at=later)
    )
    assert await shown(desk) == ["always"]
    desk.clock.move(timedelta(days=1))
    assert await shown(desk) == ["tomorrow", "always"]
    desk.clock.move(timedelta(days=1))
    assert await shown(desk) == ["always"]
    assert [one.text for one in await announcements.all()] in (["tomorrow", "always"], ["always", "tomorrow"])


async def test_they_are_changed_and_taken_away(desk: Desk) -> None:
    announcements = desk.control.announcements
    made = await announcements.create(ANN, NewAnnouncement(text="  Maintenance  "))
    assert made.text == "Maintenance"
    changed = await announcements.change(ANN, made.id, AnnouncementChanges(text="Over", level="warning"))
    assert (changed.text, changed.level, changed.starts_at) == ("Over", "warning", made.starts_at)
    ends = desk.clock.now() + timedelta(hours=1)
    assert (await announcements.change(ANN, made.id, AnnouncementChanges(ends_at=ends))).ends_at == ends
    assert (await announcements.change(ANN, made.id, AnnouncementChanges(ends_at=None))).ends_at is None
    await announcements.delete(ANN, made.id)
    assert await shown(desk) == []
    for work in (announcements.get(made.id), announcements.delete(ANN, made.id)):
        with pytest.raises(NotFound):
            await work
    page = await desk.control.audit.page({"target": made.id, "result": "ok"}, limit=9)
    assert [line["action"] for line in page.data] == [
        "announcements.delete", "announcements.change", "announcements.change", "announcements.change",
        "announcements.create"]  # fmt: skip


async def test_what_they_cannot_be(desk: Desk) -> None:
    now, announcements = desk.clock.now(), desk.control.announcements
    for new in (NewAnnouncement(text=" "), NewAnnouncement(text="x" * 501), NewAnnouncement(text="a\nb"),
                NewAnnouncement(text="x", ends_at=now)):  # fmt: skip
        with pytest.raises(InvalidRequest):
            await announcements.create(ANN, new)
    made = await announcements.create(ANN, NewAnnouncement(text="x", ends_at=now + timedelta(hours=1)))
    with pytest.raises(InvalidRequest):
        await announcements.change(ANN, made.id, AnnouncementChanges(starts_at=now + timedelta(hours=2)))
