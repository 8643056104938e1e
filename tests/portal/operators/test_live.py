"""The live page: calls under way, whoever's, without what they say; and what is sent when it changes."""

from datetime import timedelta

from llmgateway.control.people import UserChanges
from llmgateway.domain.live import OpenCall
from tests.control.desk import ANN
from tests.portal.house import Browser, Portal
from tests.portal.test_overview import used

LIVE = "/portal/operators/live"


def calls_of(portal: Portal) -> list[OpenCall]:
    at = portal.desk.clock.now() - timedelta(seconds=7)
    return [
        OpenCall(id="call-1", at=at, model="qwen3-32b", stream=True, state="open", user="aino", tokens=41,
                 replica="10.0.0.7:8000"),
        OpenCall(id="call-2", at=at, model="org/embed", stream=False, state="waiting"),
    ]  # fmt: skip


async def test_what_is_under_way_and_what_ended(ann: Browser, portal: Portal) -> None:
    await ann.get(LIVE)
    assert "Nothing right now." in ann.page
    assert "Nothing yet." in ann.page
    portal.calls = calls_of(portal)
    await used(portal, "ville", "qwen3-32b", outcome="timeout", status=504)
    await ann.get(LIVE)
    for text in (
        "Under way: 2",
        "aino",
        "Streams",
        "Waits for its turn",
        "7 s",
        "41",
        "10.0.0.7:8000",
        "504 Too slow",
    ):
        assert text in ann.page, text


async def test_pieces_follow_until_the_role_is_gone(ann: Browser, portal: Portal) -> None:
    """The stream ends by itself when the session, or its role, does."""
    portal.calls = calls_of(portal)

    async def demote(looks: int) -> None:
        if looks == 3:
            await portal.desk.control.people.change(ANN, "ann", UserChanges(roles=["user"]))

    portal.on_look = demote
    answer = await ann.get(f"{LIVE}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    pieces = [one for one in answer.text.split("\n\n") if one.startswith("data: ")]
    assert len(pieces) == 1, "what is the same is not sent again"
    assert "Under way: 2" in pieces[0]
    assert "<html" not in pieces[0]
    assert (await ann.get(f"{LIVE}/events")).status_code == 404
