"""The audit log: every line, narrowed down, as files, and proved to be whole."""

import csv
import io
import re

from llmgateway.control.keys import NewKey
from llmgateway.control.people import NewUser, UserChanges
from tests.control.desk import ANN
from tests.portal.house import PASSWORD, Browser, Portal, browsing, plain_user

AUDIT = "/portal/operators/audit"


async def test_s_aud_01_every_change_of_the_pages_is_told(ann: Browser, portal: Portal) -> None:
    await portal.desk.control.people.create(ANN, NewUser(id="aino", name="=cmd()"))
    await ann.get("/portal/operators/person/aino")
    await ann.post("/portal/operators/person/aino", {"name": "Aino", "email": "", "project": ""})
    await ann.get(AUDIT)
    for text in ("users.create", "users.change", "user ann", "portal 127.0.0.1", "accounts.create"):
        assert text in ann.page, text
    assert PASSWORD not in ann.page
    for query, text, other in (
        ("who=operator", "users.create", "users.change"), ("action=users.change", "Aino", "accounts.create"),
        ("target=ann", "accounts.create", "users.change"), ("result=ok", "users.change", "Nothing"),
    ):  # fmt: skip
        await ann.get(f"{AUDIT}?{query}")
        assert text in ann.page.partition("<tbody>")[2], query
        assert other not in ann.page.partition("<tbody>")[2], query
    await ann.get(f"{AUDIT}?who=no-such-one")
    assert "No such lines" in ann.page


async def test_s_aud_01_a_refused_change_is_told_too(ann: Browser, portal: Portal) -> None:
    await ann.get("/portal/operators/people/new")
    await ann.post("/portal/operators/people", {"id": "ann"})
    await ann.get(f"{AUDIT}?result=conflict")
    assert "users.create" in ann.page


async def test_s_aud_01_whoever_signs_up_is_nobody_until_then(ann: Browser, portal: Portal) -> None:
    """Else strangers would write lines in the names of others."""
    async with browsing(portal) as stranger:
        await stranger.post("/portal/sign-up", {"login": "ann", "password": PASSWORD})
    lines = (await portal.desk.control.audit.page({"action": "accounts.create"}, limit=9)).data
    assert [(line["who"], line["target"], line["result"]) for line in lines] == [
        ("nobody", "ann", "conflict"), ("nobody", "ann", "ok"),
    ]  # fmt: skip


async def test_s_aud_01_what_a_role_does_not_allow_is_told(ann: Browser, portal: Portal) -> None:
    async with browsing(portal) as other:
        await plain_user(portal, other, "olli")
        await portal.desk.control.people.change(ANN, "olli", UserChanges(roles=["operator"]))
        await other.get("/portal/account")
        token = re.search(r'name="token" value="([^"]*)"', other.page)
        assert token is not None
        answer = await other.post(
            "/portal/operators/person-state/ann", {"token": token[1], "state": "suspended"}
        )
        assert answer.status_code == 403
    (line,) = (await portal.desk.control.audit.page({"who": "user olli", "target": "ann"}, limit=9)).data
    assert (line["action"], line["result"]) == ("portal.op-person-state", "permission_denied")


async def test_the_files_hold_all_lines(ann: Browser, portal: Portal) -> None:
    for n in range(60):
        await portal.desk.control.people.create(ANN, NewUser(id=f"user-{n}", name="=cmd()"))
    issued = await portal.desk.control.keys.create(ANN, NewKey(user="user-1", name="laptop"))
    await ann.get(AUDIT)
    assert "Next page" in ann.page
    told = (await ann.get(f"{AUDIT}.json")).json()["data"]
    table = await ann.get(f"{AUDIT}.csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["id"] for row in rows] == [line["id"] for line in told]
    assert len(told) >= 63
    assert {line["hash"] for line in told} == {row["hash"] for row in rows}
    assert issued.token.reveal() not in table.text
    some = (await ann.get(f"{AUDIT}.json?action=keys.create")).json()["data"]
    assert [line["target"] for line in some] == [issued.key.id]


async def test_s_aud_01_an_altered_line_is_found(ann: Browser, portal: Portal) -> None:
    await ann.get(AUDIT)
    await ann.post(AUDIT)
    assert "lines are whole" in ann.page
    line = (await portal.desk.store.find("audit", {}, limit=1)).data[0]
    await portal.desk.store.replace(
        "audit", {**line, "who": "user mallory", "revision": line["revision"] + 1}
    )
    await ann.get(AUDIT)
    await ann.post(AUDIT)
    assert f"The chain is broken at line {line['id']}: it was altered." in ann.page
