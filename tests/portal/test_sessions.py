"""Sessions: cookies, rotation of ids and of keys, ends of every kind, and the operators' gate."""

from datetime import timedelta

import pytest
from starlette.responses import Response

from llmgateway.control.people import NewUser, UserChanges
from llmgateway.domain.errors import NotAllowed, NotFound, StoreUnavailable
from llmgateway.domain.secret import Secret
from llmgateway.portal.origin import Origins
from llmgateway.portal.sessions import CSRF_HEADER, IDLE, LONGEST, SHELF, Session, Sessions
from llmgateway.stores.sqlite_shelf import SqliteShelf
from tests.control.desk import ANN, Desk
from tests.portal.asking import KEYS, cookie_of, request_of

SAME = ("sec-fetch-site", "same-origin")


@pytest.fixture(autouse=True)
async def alice(desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="alice"))


async def signed_in(sessions: Sessions, user: str = "alice", cookie: str | None = None) -> str:
    response = Response()
    request = request_of(("user-agent", "Mozilla/5.0"), cookie=cookie)
    await sessions.begin(request, response, user, "local", address="10.0.0.1")
    return cookie_of(response)


async def user_of(sessions: Sessions, cookie: str) -> str | None:
    found = await sessions.of(request_of(cookie=cookie))
    return found and found[1].id


async def session_of(sessions: Sessions, cookie: str) -> Session:
    found = await sessions.of(request_of(cookie=cookie))
    assert found is not None
    return found[0]


async def test_s_ses_01_cookie_flags(sessions: Sessions, desk: Desk, shelf: SqliteShelf) -> None:
    response = Response()
    await sessions.begin(request_of(), response, "alice", "local")
    parts = response.headers["set-cookie"].split("; ")
    assert parts[0].startswith("lgw=")
    assert sorted(parts[1:]) == [
        "HttpOnly",
        f"Max-Age={int(LONGEST.total_seconds())}",
        "Path=/",
        "SameSite=lax",
    ]
    origins = Origins("https://llm.example.org")
    secure = Sessions(shelf, desk.control.people, desk.clock, keys=KEYS, origins=origins)
    for work in (
        lambda r: secure.begin(request_of(), r, "alice", "saml"),
        lambda r: secure.end(request_of(), r),
    ):
        response = Response()
        await work(response)
        parts = response.headers["set-cookie"].split("; ")
        assert parts[0].startswith("__Host-lgw=")
        assert {"HttpOnly", "Path=/", "SameSite=lax", "Secure"} < set(parts)
        assert not any(part.startswith("Domain") for part in parts)


async def test_a_session_proves_its_user_until_it_is_ended(sessions: Sessions) -> None:
    cookie = await signed_in(sessions)
    assert await user_of(sessions, cookie) == "alice"
    session = await session_of(sessions, cookie)
    assert (session.agent, session.address, session.how) == ("Mozilla/5.0", "10.0.0.1", "local")
    response = Response()
    await sessions.end(request_of(cookie=cookie), response)
    assert cookie_of(response) == 'lgw=""'
    assert await user_of(sessions, cookie) is None


async def test_neither_cookie_nor_shelf_alone_opens_a_session(sessions: Sessions, shelf: SqliteShelf) -> None:
    cookie = await signed_in(sessions)
    token = cookie.partition("=")[2].rpartition(".")[0]
    assert len(token) == 43
    assert await shelf.get(SHELF, token) is None
    session = await session_of(sessions, cookie)
    assert token not in repr(session)
    assert await user_of(sessions, f"lgw={session.id}") is None


async def test_s_ses_02_the_id_changes_at_sign_in(sessions: Sessions) -> None:
    before = await signed_in(sessions)
    after = await signed_in(sessions, cookie=before)
    assert after != before
    assert await user_of(sessions, before) is None
    assert await user_of(sessions, after) == "alice"
    assert len(await sessions.of_user("alice")) == 1


async def test_s_ses_03_whoever_is_suspended_or_gone_is_out_at_once(sessions: Sessions, desk: Desk) -> None:
    cookie = await signed_in(sessions)
    await desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))
    assert await user_of(sessions, cookie) is None
    with pytest.raises(NotAllowed, match="suspended"):
        await signed_in(sessions)
    await desk.control.people.change(ANN, "alice", UserChanges(state="active"))
    assert await user_of(sessions, cookie) is None
    cookie = await signed_in(sessions)
    await desk.store.delete("users", "alice")
    assert await user_of(sessions, cookie) is None
    with pytest.raises(NotFound):
        await signed_in(sessions)


async def test_s_ses_04_forged_cookies_and_rotated_keys(
    sessions: Sessions, desk: Desk, shelf: SqliteShelf
) -> None:
    cookie = await signed_in(sessions)
    flipped = cookie[:-9] + ("A" if cookie[-9] != "A" else "B") + cookie[-8:]
    longer = cookie.replace("=", "=x", 1)
    for forged in (flipped, longer, cookie[:-5], cookie.rpartition(".")[0], "lgw=", "lgw=.", "lgw=\xe4.\xe4"):
        assert await user_of(sessions, forged) is None

    def with_keys(*keys: Secret) -> Sessions:
        return Sessions(
            shelf, desk.control.people, desk.clock, keys=keys, origins=Origins("http://127.0.0.1:8080")
        )

    newest = Secret("newest-signing-key-0123456789-0123456789")
    rotated = with_keys(newest, KEYS[0])
    assert await user_of(rotated, cookie) == "alice"
    assert await user_of(with_keys(newest), cookie) is None
    assert await user_of(with_keys(newest), await signed_in(rotated)) == "alice"


async def test_s_ses_06_another_process_and_a_restart_know_every_session(
    sessions: Sessions, desk: Desk
) -> None:
    cookie = await signed_in(sessions)
    other = Sessions(
        SqliteShelf(desk.store.file, desk.clock), desk.control.people, desk.clock, keys=KEYS[:1],
        origins=Origins("http://127.0.0.1:8080"),
    )  # fmt: skip
    assert await user_of(other, cookie) == "alice"
    await other.end_all("alice")
    assert await user_of(sessions, cookie) is None


async def test_s_ses_07_idle_and_absolute_ends(sessions: Sessions, desk: Desk) -> None:
    idle, busy = await signed_in(sessions), await signed_in(sessions)
    began = desk.clock.seconds
    for hours in range(1, int(LONGEST / timedelta(hours=1))):
        desk.clock.pass_seconds(3600)
        assert await user_of(sessions, busy) == "alice"
        if timedelta(hours=hours) == IDLE + timedelta(hours=1):
            assert await user_of(sessions, idle) is None
    desk.clock.at -= timedelta(days=30)  # somebody sets the clock back
    desk.clock.seconds = began + LONGEST.total_seconds()
    assert await user_of(sessions, busy) is None


async def test_sessions_are_listed_and_ended_by_their_owner_only(sessions: Sessions, desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="bob"))
    cookies = []
    for _ in range(3):
        cookies.append(await signed_in(sessions))
        desk.clock.pass_seconds(1)
    bobs = await signed_in(sessions, "bob")
    listed = await sessions.of_user("alice")
    newest = await session_of(sessions, cookies[2])
    assert listed[0].id == newest.id
    assert len(listed) == 3
    assert not await sessions.end_one("bob", newest.handle)
    assert await sessions.end_one("alice", (await session_of(sessions, cookies[0])).handle)
    assert await user_of(sessions, cookies[0]) is None
    assert await sessions.end_all("alice", but=newest) == 1
    assert [await user_of(sessions, one) for one in (*cookies, bobs)] == [None, None, "alice", "bob"]
    assert await sessions.end_all("alice") == 1


async def test_the_operators_gate_asks_for_the_role_and_for_our_own_page(
    sessions: Sessions, desk: Desk
) -> None:
    cookie = await signed_in(sessions)
    assert await sessions.administrator(request_of(SAME, cookie=cookie)) is None
    await desk.control.people.change(ANN, "alice", UserChanges(roles=["user", "admin"]))
    assert await sessions.administrator(request_of(SAME, cookie=cookie)) == "alice"
    assert await sessions.administrator(request_of(("sec-fetch-site", "cross-site"), cookie=cookie)) is None
    assert await sessions.administrator(request_of()) is None
    token = (await session_of(sessions, cookie)).csrf
    for headers, who in [
        ([SAME, (CSRF_HEADER, token)], "alice"),
        ([SAME], None),
        ([SAME, (CSRF_HEADER, "wrong")], None),
        ([(CSRF_HEADER, token)], None),
    ]:
        assert await sessions.administrator(request_of(*headers, method="POST", cookie=cookie)) == who


async def test_s_key_07_the_record_of_another_session_opens_nothing(
    sessions: Sessions, desk: Desk, shelf: SqliteShelf, caplog: pytest.LogCaptureFixture
) -> None:
    """As replies that were mixed up, or somebody who writes to the shelf, would have it."""
    await desk.control.people.create(ANN, NewUser(id="mallory"))
    await signed_in(sessions)
    mine = await signed_in(sessions, "mallory")
    (theirs,) = (await shelf.owned(SHELF, "alice")).values()
    (id,) = await shelf.owned(SHELF, "mallory")
    await shelf.put(SHELF, id, theirs, 60, owner="mallory")
    with pytest.raises(StoreUnavailable):
        await sessions.of(request_of(cookie=mine))
    assert "another's" in caplog.text
    assert await sessions.of(request_of(cookie=mine)) is None
