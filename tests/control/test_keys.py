"""Keys: made, listed, changed, revoked, rotated; proved by the authentication that calls pass."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from typing_extensions import override

from llmgateway.control.audit import Actor
from llmgateway.control.keys import KeyChanges, NewKey, key_view
from llmgateway.control.people import NewUser, UserChanges
from llmgateway.control.projects import NewProject, ProjectChanges
from llmgateway.control.services import Control
from llmgateway.domain.errors import Conflict, InvalidRequest, NotAuthenticated, NotFound
from llmgateway.domain.keys import digest_of
from llmgateway.domain.limits import Limits
from llmgateway.domain.ports import Change, Document, Kind
from llmgateway.stores.sqlite import SqliteStore
from tests.control.desk import ANN, PEPPER, Desk
from tests.stores.samples import record

NEW = NewKey(user="alice", name="laptop")


async def test_a_new_key_works_and_makes_its_user(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NEW)
    principal = await desk.call(issued.token.reveal())
    assert (principal.key_id, principal.user, principal.models) == (issued.key.id, "alice", None)
    assert (await desk.control.people.get("alice")).roles == ("user",)


async def test_only_the_digest_is_kept(desk: Desk, tmp_path: Path) -> None:
    token = (await desk.control.keys.create(ANN, NEW)).token.reveal()
    token2 = (
        await desk.control.keys.rotate(ANN, (await desk.control.keys.page({}, limit=1))[0][0].id)
    ).token.reveal()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (token, token2):
        assert secret.encode() not in kept
        assert secret.split("_")[2].encode() not in kept
    assert digest_of(token2.encode(), PEPPER).hex().encode() in kept


async def test_a_key_is_not_shown_in_clear_by_accident(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NEW)
    secret = issued.token.reveal().split("_")[2]
    assert secret not in repr(issued)
    view = msgspec.json.encode(key_view(issued.key)).decode()
    assert secret not in view
    assert issued.key.digest not in view


async def test_what_people_see_of_a_key(desk: Desk) -> None:
    new = NewKey(
        user="alice",
        name="  CI  ",
        models=["default", "org/embed", "qwen3-32b"],
        project="physics",
        expires_at=datetime(2026, 12, 1, 2, tzinfo=UTC),
        limits=Limits(tokens_per_day=5),
    )
    issued = await desk.control.keys.create(ANN, new)
    assert key_view(issued.key) == {
        "id": issued.key.id,
        "prefix": f"lgw_{issued.key.id}",
        "hint": issued.token.reveal()[-4:],
        "user": "alice",
        "name": "CI",
        "project": "physics",
        "models": ("qwen3-32b", "org/embed"),
        "limits": {"tokens_per_day": 5},
        "created_at": "2026-11-20T12:00:00Z",
        "expires_at": "2026-12-01T02:00:00Z",
        "state": "active",
        "purpose": "programs",
        "previous_until": None,
    }
    assert await desk.control.keys.get(issued.key.id) == issued.key


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"models": ["nobody"]}, "models"),
        ({"models": []}, "models"),
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"user": ""}, "user"),
        ({"user": "u" * 201}, "user"),
        ({"user": ".."}, "user"),
        ({"user": "a/"}, "user"),
        ({"expires_at": datetime(2026, 11, 20, 12, tzinfo=UTC)}, "expires_at"),
        ({"expires_at": datetime(2026, 11, 20, 11, 59)}, "expires_at"),  # noqa: DTZ001 - read as UTC
        ({"limits": Limits(tokens_per_day=2**53)}, "limits.tokens_per_day"),
        ({"project": ""}, "project"),
    ],
)
async def test_what_a_key_cannot_be(desk: Desk, changes: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await desk.control.keys.create(ANN, msgspec.structs.replace(NEW, **changes))
    assert refused.value.param == param
    assert (await desk.control.keys.page({}, limit=10)) == ([], None)
    assert (await desk.control.people.page({}, limit=10)) == ([], None)


async def test_a_key_belongs_to_its_users_project(desk: Desk) -> None:
    await desk.control.people.ensure(ANN, "alice")
    await desk.control.people.change(ANN, "alice", UserChanges(project="physics"))
    assert (await desk.control.keys.create(ANN, NEW)).key.project == "physics"
    other = msgspec.structs.replace(NEW, project="maths")
    assert (await desk.control.keys.create(ANN, other)).key.project == "maths"


async def test_no_key_for_a_suspended_user(desk: Desk) -> None:
    await desk.control.people.ensure(ANN, "alice")
    await desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))
    with pytest.raises(Conflict):
        await desk.control.keys.create(ANN, NEW)
    assert (await desk.control.keys.page({}, limit=10))[0] == []


async def test_suspending_and_resuming(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NEW)
    token = issued.token.reveal()
    await desk.call(token)
    await desk.control.keys.change(ANN, issued.key.id, KeyChanges(state="suspended"))
    assert desk.state.announced == [Change("keys", issued.key.id)]
    with pytest.raises(NotAuthenticated):
        await desk.call(token)
    await desk.control.keys.change(ANN, issued.key.id, KeyChanges(state="active"))
    await desk.call(token)


async def test_revoking_is_final(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NEW)
    await desk.call(issued.token.reveal())
    revoked = await desk.control.keys.revoke(ANN, issued.key.id)
    assert revoked.state == "revoked"
    with pytest.raises(NotAuthenticated):
        await desk.call(issued.token.reveal())
    for changes in (KeyChanges(state="active"), KeyChanges(state="suspended"), KeyChanges(name="new")):
        with pytest.raises(Conflict):
            await desk.control.keys.change(ANN, issued.key.id, changes)
    with pytest.raises(Conflict):
        await desk.control.keys.rotate(ANN, issued.key.id)
    assert await desk.control.keys.revoke(ANN, issued.key.id) == revoked  # twice is as once


async def test_rotation_keeps_both_keys_for_an_overlap(desk: Desk) -> None:
    first = await desk.control.keys.create(ANN, NEW)
    second = await desk.control.keys.rotate(ANN, first.key.id, timedelta(hours=2))
    assert second.key.id == first.key.id
    assert second.key.previous_until == desk.clock.now() + timedelta(hours=2)
    assert second.key.hint == second.token.reveal()[-4:]
    for token in (first.token, second.token):
        assert (await desk.call(token.reveal())).key_id == first.key.id
    desk.clock.move(timedelta(hours=2))
    await desk.call(second.token.reveal())
    with pytest.raises(NotAuthenticated):
        await desk.call(first.token.reveal())


async def test_a_second_rotation_ends_the_first_key(desk: Desk) -> None:
    first = await desk.control.keys.create(ANN, NEW)
    second = await desk.control.keys.rotate(ANN, first.key.id)
    third = await desk.control.keys.rotate(ANN, first.key.id)
    with pytest.raises(NotAuthenticated):
        await desk.call(first.token.reveal())
    for token in (second.token, third.token):
        await desk.call(token.reveal())


async def test_rotation_without_overlap_ends_the_old_key_at_once(desk: Desk) -> None:
    first = await desk.control.keys.create(ANN, NEW)
    await desk.call(first.token.reveal())
    second = await desk.control.keys.rotate(ANN, first.key.id, timedelta())
    with pytest.raises(NotAuthenticated):
        await desk.call(first.token.reveal())
    await desk.call(second.token.reveal())
    assert second.key.previous is None


async def test_an_expired_key_is_not_rotated(desk: Desk) -> None:
    expires = desk.clock.now() + timedelta(days=1)
    issued = await desk.control.keys.create(ANN, msgspec.structs.replace(NEW, expires_at=expires))
    desk.clock.move(timedelta(days=1))
    with pytest.raises(Conflict):
        await desk.control.keys.rotate(ANN, issued.key.id)
    with pytest.raises(InvalidRequest):
        await desk.control.keys.rotate(ANN, issued.key.id, timedelta(days=31))


async def test_changing_every_field(desk: Desk) -> None:
    key = (await desk.control.keys.create(ANN, msgspec.structs.replace(NEW, models=["default"]))).key
    until = desk.clock.now() + timedelta(days=1)
    changed = await desk.control.keys.change(
        ANN,
        key.id,
        KeyChanges(name="desk", models=["org/embed"], expires_at=until, limits=Limits(requests_per_minute=3)),
    )
    assert (changed.name, changed.models, changed.expires_at) == ("desk", ("org/embed",), until)
    assert changed.limits == Limits(requests_per_minute=3)
    freed = await desk.control.keys.change(ANN, key.id, KeyChanges(models=None, expires_at=None, limits=None))
    assert (freed.models, freed.expires_at, freed.limits) == (None, None, Limits())
    assert freed.revision == 2
    assert (await desk.control.keys.change(ANN, key.id, KeyChanges(name="desk"))).revision == 2  # no news


async def test_changes_at_the_same_time_all_count(desk: Desk) -> None:
    key = (await desk.control.keys.create(ANN, NEW)).key
    changes = [
        KeyChanges(name="new"),
        KeyChanges(models=["org/embed"]),
        KeyChanges(limits=Limits(tokens_per_day=1)),
        KeyChanges(state="suspended"),
    ]
    await asyncio.gather(*(desk.control.keys.change(ANN, key.id, one) for one in changes))
    after = await desk.control.keys.get(key.id)
    assert (after.name, after.models, after.limits.tokens_per_day, after.state) == (
        "new",
        ("org/embed",),
        1,
        "suspended",
    )
    assert after.revision == 4


async def test_fields_of_a_later_version_are_kept(desk: Desk) -> None:
    key = (await desk.control.keys.create(ANN, NEW)).key
    document = await desk.store.get("keys", key.id) or {}
    await desk.store.replace("keys", {**document, "colour": "red", "revision": 1})
    await desk.control.keys.change(ANN, key.id, KeyChanges(name="new"))
    assert (await desk.store.get("keys", key.id) or {})["colour"] == "red"


async def test_a_change_counts_although_it_cannot_be_announced(desk: Desk) -> None:
    issued = await desk.control.keys.create(ANN, NEW)
    desk.state.is_down = True
    assert (await desk.control.keys.revoke(ANN, issued.key.id)).state == "revoked"
    desk.state.is_down = False
    await desk.control.keys.revoke(ANN, issued.key.id)
    assert desk.state.announced == [Change("keys", issued.key.id)], "once more, for who has missed it"


async def test_lists_are_filtered_and_paged(desk: Desk) -> None:
    for user in ("alice", "bob", "alice", "alice"):
        await desk.control.keys.create(ANN, NewKey(user=user, name="k"))
    seen: list[str] = []
    after: str | None = None
    while True:
        found, after = await desk.control.keys.page({"user": "alice"}, limit=2, after=after)
        seen += [key.id for key in found]
        if after is None:
            break
    assert len(seen) == 3
    assert seen == sorted(seen)
    await desk.control.keys.revoke(ANN, seen[0])
    assert [key.id for key in (await desk.control.keys.page({"state": "revoked"}, limit=9))[0]] == [seen[0]]


async def test_a_key_of_somebody_else_is_as_unknown(desk: Desk) -> None:
    key = (await desk.control.keys.create(ANN, NEW)).key
    assert (await desk.control.keys.get(key.id, owner="alice")).id == key.id
    with pytest.raises(NotFound) as of_another:
        await desk.control.keys.get(key.id, owner="mallory")
    with pytest.raises(NotFound) as of_nobody:
        await desk.control.keys.get("0" * 12)
    assert of_another.value.message == of_nobody.value.message.replace("0" * 12, key.id)


async def test_the_last_use_comes_from_the_ledger(desk: Desk) -> None:
    key = (await desk.control.keys.create(ANN, NEW)).key
    assert await desk.control.keys.last_used_at(key) is None
    chance = random.Random(1)
    for hours in (1, 30, 2):
        at = desk.clock.now() + timedelta(hours=hours)
        await desk.store.append([record(chance, at, key_id=key.id), record(chance, at + timedelta(hours=1))])
    for days in (2, 10, 100):
        desk.clock.move(timedelta(days=days))
        assert await desk.control.keys.last_used_at(key) == datetime(2026, 11, 21, 18, tzinfo=UTC)


class Late(SqliteStore):
    """The same file; once, something else happens just before a key is written."""

    def __init__(self, store: SqliteStore, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store.file)
        self._meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    async def _be_late(self, kind: Kind) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None if kind == "keys" else self._meanwhile
        if kind == "keys" and meanwhile is not None:
            await meanwhile()

    @override
    async def insert(self, kind: Kind, document: Document) -> None:
        await self._be_late(kind)
        await super().insert(kind, document)

    @override
    async def replace(self, kind: Kind, document: Document) -> None:
        await self._be_late(kind)
        await super().replace(kind, document)


def late(desk: Desk, meanwhile: Callable[[], Awaitable[object]]) -> Control:
    store = Late(desk.store, meanwhile)
    return Control.over(store, desk.state, desk.clock, pepper=PEPPER, configured=lambda: desk.configuration)


@pytest.mark.parametrize("comes_back", [False, True])
async def test_s_key_08_no_key_is_made_while_its_account_ends(desk: Desk, comes_back: bool) -> None:
    """Nor for whoever has the same name after that."""
    await desk.control.people.create(ANN, NewUser(id="alice"))

    async def end() -> None:
        await desk.erasure.forget(ANN, "alice")
        if comes_back:
            desk.clock.pass_seconds(1)
            await desk.control.people.create(ANN, NewUser(id="alice"))

    with pytest.raises(Conflict):
        await late(desk, end).keys.create(Actor("user alice", "portal 10.0.0.1"), NEW)
    assert (await desk.store.find("keys", {}, limit=9)).data == []


async def test_no_key_is_made_while_its_user_is_shut_out(desk: Desk) -> None:
    await desk.control.people.create(ANN, NewUser(id="alice"))

    async def suspend() -> None:
        await desk.control.people.change(ANN, "alice", UserChanges(state="suspended"))

    with pytest.raises(Conflict, match="suspended"):
        await late(desk, suspend).keys.create(ANN, NEW)


async def test_s_key_08_no_key_is_made_while_its_project_ends(desk: Desk) -> None:
    await desk.control.projects.create(ANN, NewProject(id="thesis"))
    await desk.control.people.create(ANN, NewUser(id="alice", project="thesis"))
    keys = late(desk, lambda: desk.control.projects.end(ANN, "thesis")).keys
    with pytest.raises(Conflict, match="has ended"):
        await keys.create(ANN, NEW)
    assert (await desk.store.find("keys", {}, limit=9)).data == []


@pytest.mark.parametrize("days", [None, 300])
async def test_no_key_outlives_a_project_that_is_cut_meanwhile(desk: Desk, days: int | None) -> None:
    """A new one is refused, and one that is changed is cut."""
    start = desk.clock.now()
    await desk.control.projects.create(ANN, NewProject(id="thesis"))
    await desk.control.people.create(ANN, NewUser(id="alice", project="thesis"))
    soon = start + timedelta(days=1)
    new = msgspec.structs.replace(NEW, expires_at=start + timedelta(hours=1))
    made = (await desk.control.keys.create(ANN, new)).key
    wanted = None if days is None else start + timedelta(days=days)

    async def cut() -> None:
        await desk.control.projects.change(ANN, "thesis", ProjectChanges(expires_at=soon))

    changed = await late(desk, cut).keys.change(ANN, made.id, KeyChanges(expires_at=wanted))
    assert changed.expires_at == (await desk.control.keys.get(made.id)).expires_at == soon

    async def cut_more() -> None:
        changes = ProjectChanges(expires_at=start + timedelta(hours=2))
        await desk.control.projects.change(ANN, "thesis", changes)

    with pytest.raises(Conflict, match="try again"):
        await late(desk, cut_more).keys.create(ANN, msgspec.structs.replace(NEW, expires_at=wanted))
