"""Our cookies among others, in order and out of it, and what an odd one costs at the doors that read them."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from starlette.responses import Response

import llmgateway
from llmgateway.admin.gate import Gate
from llmgateway.control.people import NewUser
from llmgateway.domain.errors import NotAuthenticated
from llmgateway.portal.cookie import cookie_in
from llmgateway.portal.sessions import Sessions
from tests.control.desk import ANN, Desk
from tests.portal.asking import cookie_of, request_of
from tests.portal.house import ADMIN_KEY, Browser

PACKAGE = Path(llmgateway.__file__).parent
HEAD = 16_000  # bytes of a head that are left for a cookie
ODD = ("\\", "\\1", '\\"', '\\1"', "\\101", ";", "=", '"', " ", 'a="b";', "lgw;", "lgw=;", "x")
AT_MOST = 0.05  # seconds of CPU; the standard library's way with quotes takes half a second of some


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (None, None),
        ("", None),
        ("lgw=one", "one"),
        ("a=b; lgw=one; lgw-look=en.dark", "one"),
        ("lgw = one ;a", "one"),
        ("lgw=a=b", "a=b"),
        ("lgw=", ""),
        ("lgw", None),
        ("LGW=one", None),
        ("xlgw=one; lgwx=two", None),
        ('a="; lgw=one"', 'one"'),
        ("lgw=one; lgw=two", "two"),
    ],
)
def test_one_is_found_by_its_whole_name(sent: str | None, value: str | None) -> None:
    assert cookie_in(request_of(cookie=sent), "lgw") == value


def test_several_headers_are_one() -> None:
    request = request_of(("cookie", "lgw=one; a=b"), ("cookie", "c=d"))
    assert [cookie_in(request, name) for name in ("lgw", "a", "c", "e")] == ["one", "b", "d", None]


async def test_s_in_12_an_odd_cookie_costs_no_time(browser: Browser, sessions: Sessions, desk: Desk) -> None:
    """At the portal, and at the operators' door for who brings no key."""
    gate = Gate(ADMIN_KEY, sessions.administrator)

    async def operates(cookie: str) -> None:
        with pytest.raises(NotAuthenticated):
            await gate(request_of(cookie=cookie))

    async def looks(cookie: str) -> None:
        assert (await browser.get("/portal/sign-up", cookie=cookie)).status_code == 200

    await looks("")  # its template is made once
    for piece in ODD:
        cookie = f'lgw="{piece * (HEAD // len(piece))}"'
        for door in (operates, looks):
            spent = [await _seconds(door, cookie)]
            if spent[0] >= AT_MOST:  # once more: it may have been the collector
                spent.append(await _seconds(door, cookie))
            assert min(spent) < AT_MOST, (piece, door.__name__, spent)


def test_nobody_reads_them_in_another_way() -> None:
    assert not [path for path in PACKAGE.rglob("*.py") if ".cookies" in path.read_text()]


async def test_a_session_is_found_among_odd_ones(sessions: Sessions, desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="alice"))
    response = Response()
    await sessions.begin(request_of(), response, "alice", "local")
    found = await sessions.of(request_of(cookie=f'a="\\1{"; " * 99}{cookie_of(response)};"'))
    assert found is not None
    assert found[1].id == "alice"


async def _seconds(door: Callable[[str], Awaitable[None]], cookie: str) -> float:
    began = time.process_time()
    await door(cookie)
    return time.process_time() - began
