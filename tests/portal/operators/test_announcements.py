"""Announcements: at the head of every page while they last, and nothing but text."""

from datetime import timedelta

import pytest

from llmgateway.control.announcements import NewAnnouncement
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal, browsing

PAGE = "/portal/operators/announcements"
ODD = "<b onclick=alert(1)>New GPUs</b>"


async def test_s_csp_02_everybody_reads_it_as_text(ann: Browser, portal: Portal) -> None:
    await ann.get(PAGE)
    assert "Nothing is announced" in ann.page
    await ann.post(PAGE, {"text": ODD, "level": "critical", "starts": "", "ends": ""})
    async with browsing(portal) as stranger:
        for path in ("/portal/sign-in", "/portal/nothing"):
            await stranger.get(path)
            assert "&lt;b onclick=alert(1)&gt;New GPUs" in stranger.page, path
            assert "<b onclick" not in stranger.page
    for path in ("/portal", "/portal/keys", PAGE, "/portal/nothing"):
        await ann.get(path)
        assert "alert announced error" in ann.page, path


async def test_times_are_those_of_the_gateway(ann: Browser, portal: Portal) -> None:
    await ann.get(PAGE)
    fields = {"text": "Later", "level": "info", "starts": "2026-11-20T15:00", "ends": "2026-11-20T16:00"}
    assert (await ann.post(PAGE, fields)).status_code == 303
    (one,) = await portal.desk.control.announcements.all()
    assert str(one.starts_at) == "2026-11-20 13:00:00+00:00"
    shown = []
    for _ in range(3):
        await ann.get("/portal")
        shown.append("announced" in ann.page)
        portal.desk.clock.move(timedelta(minutes=61))
    assert shown == [False, True, False]
    await ann.get(f"{PAGE}/{one.id}")
    assert 'value="2026-11-20T15:00"' in ann.page
    await ann.post(f"{PAGE}/{one.id}", {**fields, "ends": "", "level": "warning"})
    await ann.get("/portal")
    assert "alert announced warn" in ann.page
    await ann.get(PAGE)
    assert "End “Later” now" in ann.page
    answer = await ann.post(f"{PAGE}/{one.id}/end")
    assert answer.headers["location"] == f"{PAGE}?said=announcement-ended"
    await ann.get("/portal")
    assert "announced" not in ann.page
    await ann.get(f"{PAGE}/{one.id}/delete")
    assert "Delete the announcement?" in ann.page
    await ann.post(f"{PAGE}/{one.id}/delete")
    assert await portal.desk.control.announcements.all() == []
    assert (await ann.get(f"{PAGE}/{one.id}")).status_code == 404


async def test_what_has_not_begun_is_not_ended(ann: Browser, portal: Portal) -> None:
    soon = NewAnnouncement(text="Soon", starts_at=portal.desk.clock.now() + timedelta(hours=1))
    one = await portal.desk.control.announcements.create(ANN, soon)
    await ann.get(PAGE)
    assert (await ann.post(f"{PAGE}/{one.id}/end", ann.hidden(PAGE))).status_code == 409
    assert "delete it instead" in ann.page


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ""},
        {"text": "x", "starts": "soon"},
        {"text": "x", "ends": "2020-01-01T00:00"},
        {"text": "x" * 501},
    ],
)
async def test_what_it_cannot_be(ann: Browser, portal: Portal, fields: dict[str, str]) -> None:
    await ann.get(PAGE)
    assert (await ann.post(PAGE, fields)).status_code == 422
    assert 'class="wrong"' in ann.page
    made = await portal.desk.control.announcements.create(ANN, NewAnnouncement(text="There"))
    await ann.get(f"{PAGE}/{made.id}")
    assert (await ann.post(f"{PAGE}/{made.id}", fields)).status_code == 422
    assert (await portal.desk.control.announcements.get(made.id)).text == "There"
