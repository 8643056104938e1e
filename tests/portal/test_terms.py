"""Terms of use: nothing goes on before they are accepted, and again when they change."""

import pytest

from llmgateway.domain.terms import Terms
from llmgateway.portal.routes import PLACES
from llmgateway.portal.terms import Piece, pieces
from tests.portal.house import Browser, Portal

FIRST = Terms(version="1", text="# Rules\nBe kind\nto all.\n\n- One\n- Two\n  goes on\n\nThe end. <b>")
SECOND = Terms(version="2", text="Be kinder.")
CLOSED = [place for place in PLACES if place.needs == "user" and not place.is_before_terms]


async def test_without_terms_nothing_is_asked(alice: Browser) -> None:
    assert (await alice.get("/portal")).status_code == 200
    await alice.get("/portal/terms")
    assert "There are no terms of use" in alice.page


async def test_every_place_waits_until_they_are_accepted(alice: Browser, portal: Portal) -> None:
    await alice.get("/portal/account")
    token = alice.hidden("/portal/account")["token"]
    portal.desk.configure(terms=FIRST)
    for place in CLOSED:
        path = place.path.replace("{id}", "abc").replace("{id:path}", "abc")
        for answer in (await alice.get(path), await alice.post(path, {"token": token, "name": "k"})):
            assert answer.status_code == 303, place.name
            assert answer.headers["location"].startswith("/portal/terms"), place.name
    assert (await portal.desk.control.keys.page({}, limit=1))[0] == [], "no key was made"
    assert (await alice.get("/portal/account/export.json")).status_code == 200
    assert (await alice.get("/portal/keys")).headers["location"] == "/portal/terms?next=keys"
    await alice.get("/portal/terms?next=keys")
    assert "Please read and accept this before you go on." in alice.page
    assert "&lt;b&gt;" in alice.page
    answer = await alice.post("/portal/terms")
    assert answer.headers["location"] == "/portal/keys?said=accepted"
    assert (await alice.get("/portal/keys")).status_code == 200


async def test_another_version_is_asked_for_anew(alice: Browser, portal: Portal) -> None:
    portal.desk.configure(terms=FIRST)
    await alice.get("/portal/terms")
    await alice.post("/portal/terms")
    portal.desk.configure(terms=SECOND)
    await alice.get("/portal/terms")
    assert "The terms have changed." in alice.page
    assert "What you have accepted" in alice.page
    refused = await alice.post("/portal/terms", {"version": "1"})
    assert refused.status_code == 409
    assert "please read them again" in alice.page
    assert (await alice.post("/portal/terms")).status_code == 303
    told = (await alice.get("/portal/account/export.json")).json()
    assert [one["version"] for one in told["terms_accepted"]] == ["1", "2"]
    await alice.get("/portal/account")
    assert "You accepted version 2 on" in alice.page


async def test_signing_out_needs_no_acceptance(alice: Browser, portal: Portal) -> None:
    portal.desk.configure(terms=FIRST)
    await alice.get("/portal/terms")
    assert (await alice.post("/portal/sign-out")).headers["location"] == "/portal/sign-in?said=signed-out"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("one\ntwo", [Piece("text", ("one two",))]),
        ("# Head\none", [Piece("heading", ("Head",)), Piece("text", ("one",))]),
        ("- a\n  more\n- b\n\n- c", [Piece("list", ("a more", "b")), Piece("list", ("c",))]),
        ("one\n\ntwo", [Piece("text", ("one",)), Piece("text", ("two",))]),
    ],
)
def test_plain_text_as_blocks(text: str, found: list[Piece]) -> None:
    assert pieces(text) == found
