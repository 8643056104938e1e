"""Who calls: 401 only where it is proved, 503 where nobody can tell, memory while it may be trusted."""

from datetime import timedelta
from typing import Any

import pytest

from llmgateway.domain import keys
from llmgateway.domain.errors import NotAuthenticated, StoreUnavailable, Unavailable
from llmgateway.domain.ports import Change
from llmgateway.flow import authenticate
from llmgateway.flow.authenticate import FRESH_SECONDS, STALE_SECONDS, Authenticate
from llmgateway.stores.memory import MemoryState
from tests.doubles import SetClock
from tests.flow.stage import ALICE, KEY_ID, PEPPER, TOKEN, Shelf, key_document

CALL = TOKEN.encode()


class NoCache:
    """A shared cache that is away."""

    async def cached_key(self, id: str) -> None:
        raise StoreUnavailable("away")

    async def cache_key(self, document: object, seconds: float) -> None:
        raise StoreUnavailable("away")


class Door:
    def __init__(self, cache: Any = None, **changes: Any) -> None:
        self.clock = SetClock()
        self.shelf = Shelf(keys=key_document(**changes), users=ALICE)
        self.open = Authenticate(self.shelf, cache or NoCache(), pepper=PEPPER, clock=self.clock)  # type: ignore[arg-type]  # the two methods that are called


async def test_a_valid_key_is_a_principal_and_is_looked_up_once() -> None:
    door = Door(models=("a",), project="thesis")
    principal = await door.open(CALL)
    assert (principal.key_id, principal.user, principal.project, principal.models) == (
        KEY_ID,
        "alice",
        "thesis",
        frozenset({"a"}),
    )
    asked = door.shelf.asked
    assert await door.open(CALL) == principal
    assert door.shelf.asked == asked
    door.clock.pass_seconds(FRESH_SECONDS)
    await door.open(CALL)
    assert door.shelf.asked > asked


INJECTED = (
    b"' OR 1=1--", b'{"$ne":null}', b"\r\nSET x 1\r\n", b"*", b"\x00", "١٢٣".encode(), b"lgw_*_*_*",
    CALL[:20] + b"' OR 1=1--".ljust(len(CALL) - 20, b"0"), CALL + b"\n", CALL.upper(), b"x" * 2**20,
)  # fmt: skip


@pytest.mark.parametrize(
    "token",
    [b"", b"sk-1", CALL[:-1] + b"!", b"lgw_" + b"0" * 63, *INJECTED],
    ids=lambda token: f"{len(token)} bytes",  # the keys are made anew in every process
)
async def test_s_key_03_14_what_is_no_key_is_refused_without_a_look_up(token: bytes) -> None:
    door = Door()
    with pytest.raises(NotAuthenticated):
        await door.open(token)
    assert door.shelf.asked == 0


@pytest.mark.parametrize(
    "changes",
    [{"state": "revoked"}, {"state": "suspended"}, {"expires_at": SetClock().now()}, {"digest": "0" * 64}],
    ids=["revoked", "suspended", "expired", "other secret"],
)
async def test_keys_that_are_not_valid(changes: dict[str, Any]) -> None:
    door = Door(**changes)
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_an_unknown_key_is_remembered_for_a_while() -> None:
    door = Door(id="another")
    for _ in range(3):
        with pytest.raises(NotAuthenticated):
            await door.open(CALL)
    assert door.shelf.asked == 2  # for the key, and for an owner as if there were one
    door.clock.pass_seconds(5.1)
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)
    assert door.shelf.asked == 4


async def test_s_key_06_the_same_id_with_another_secret_is_nobody() -> None:
    door = Door()
    await door.open(CALL)
    with pytest.raises(NotAuthenticated):
        await door.open(keys.mint_for(KEY_ID).encode())


async def test_s_key_08_a_key_without_an_owner_is_not_valid() -> None:
    """Wherever it is found: in the store, or in a cache that does not say whose it is."""
    door = Door()
    del door.shelf.documents["users"]
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)
    door = Door(cache=Poisoned(key_document()))
    door.shelf.is_away = True
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_a_suspended_owner_s_keys_are_not_valid() -> None:
    door = Door()
    door.shelf.documents["users"] = {"id": "alice", "state": "suspended"}
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_r_fault_20_in_an_outage_memory_serves_for_five_minutes_and_strangers_get_503() -> None:
    door = Door()
    await door.open(CALL)
    door.shelf.is_away = True
    door.clock.pass_seconds(STALE_SECONDS - 1)
    assert (await door.open(CALL)).user == "alice"
    with pytest.raises(StoreUnavailable):
        await door.open(keys.mint()[1].encode())
    door.clock.pass_seconds(2)
    with pytest.raises(StoreUnavailable):
        await door.open(CALL)


async def test_memory_lasts_no_longer_than_the_key() -> None:
    door = Door(expires_at=SetClock().now() + timedelta(seconds=10))
    await door.open(CALL)
    door.shelf.is_away = True
    door.clock.pass_seconds(9)
    await door.open(CALL)
    door.clock.pass_seconds(2)
    with pytest.raises(StoreUnavailable):
        await door.open(CALL)


async def test_a_change_is_obeyed_at_once() -> None:
    door = Door()
    await door.open(CALL)
    door.shelf.documents["keys"] = key_document(state="revoked")
    door.open.forget(Change("keys", "someone else's"))
    await door.open(CALL)
    door.open.forget(Change("keys", KEY_ID))
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_after_a_gap_nothing_is_fresh_but_an_outage_may_use_it() -> None:
    door = Door()
    await door.open(CALL)
    door.open.forget(Change("*"))
    door.shelf.is_away = True
    assert (await door.open(CALL)).user == "alice"
    door.shelf.is_away = False
    door.shelf.documents["keys"] = key_document(state="revoked")
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_a_revocation_in_an_outage_is_not_undone_by_memory() -> None:
    door = Door()
    await door.open(CALL)
    door.open.forget(Change("keys", KEY_ID))
    door.shelf.is_away = True
    with pytest.raises(StoreUnavailable):
        await door.open(CALL)


async def test_a_look_up_that_a_change_overtook_is_not_remembered() -> None:
    door = Door()
    door.shelf.before_answer = lambda: door.open.forget(Change("keys", KEY_ID))
    await door.open(CALL)
    door.shelf.before_answer = lambda: None
    door.shelf.documents["keys"] = key_document(state="revoked")
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_the_key_before_a_rotation_is_valid_until_the_overlap_ends() -> None:
    new, before = keys.mint_for(KEY_ID), key_document()["digest"]
    digest = keys.digest_of(new.encode(), PEPPER).hex()
    until = SetClock().now() + timedelta(seconds=10)
    door = Door(digest=digest, previous=before, previous_until=until)
    assert (await door.open(CALL)).key_id == (await door.open(new.encode())).key_id == KEY_ID
    door.clock.pass_seconds(11)
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)
    assert (await door.open(new.encode())).user == "alice"


async def test_a_change_concerns_the_key_before_a_rotation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what of a key is remembered in several places is forgotten in all of them."""
    new, before = keys.mint_for(KEY_ID), key_document()["digest"]
    digest = keys.digest_of(new.encode(), PEPPER).hex()
    until = SetClock().now() + timedelta(seconds=10)
    for most in (1, 2):  # with one place, each of them puts the other out
        monkeypatch.setattr(authenticate, "MOST_KNOWN", most)
        door = Door(digest=digest, previous=before, previous_until=until)
        for _ in range(2):
            for token in (CALL, new.encode()):
                assert (await door.open(token)).key_id == KEY_ID
        door.shelf.documents["keys"] = key_document(state="revoked")
        door.open.forget(Change("keys", KEY_ID))
        for token in (CALL, new.encode()):
            with pytest.raises(NotAuthenticated):
                await door.open(token)


STORED: dict[str, dict[str, Any]] = {
    "another secret": {"digest": "0" * 64},
    "revoked": {"state": "revoked"},
    "expired": {"expires_at": SetClock().now()},
    "suspended owner": {"user": "mallory"},
}
KINDS = ("unknown", *STORED)


def refused_tokens(door: Door) -> dict[str, bytes]:
    """Well-formed keys that nobody gets in with, each of its own id; the store knows all but the first."""
    tokens = {kind: keys.mint() for kind in KINDS}
    for kind, (key_id, token) in tokens.items():
        digest = keys.digest_of(token.encode(), PEPPER).hex()
        if kind in STORED:
            document = {"id": key_id, "digest": digest, **STORED[kind]}
            door.shelf.more[key_id] = key_document(**document)
    door.shelf.more["mallory"] = {"id": "mallory", "state": "suspended"}
    return {kind: token.encode() for kind, (_, token) in tokens.items()}


@pytest.mark.parametrize("is_cached", [False, True])
async def test_s_key_02_every_refusal_is_the_same_work(is_cached: bool) -> None:
    door = Door(cache=MemoryState() if is_cached else None)
    tokens = refused_tokens(door)
    for _ in range(2):  # the second time the cache knows them, too
        asked = {}
        for kind, token in tokens.items():
            before = door.shelf.asked
            with pytest.raises(NotAuthenticated):
                await door.open(token)
            asked[kind] = door.shelf.asked - before
        assert asked == dict.fromkeys(KINDS, 2)
        door.clock.pass_seconds(5.1)


def poisoned(**changes: Any) -> dict[str, Any]:
    """A record in the cache that would make Alice's key mallory's."""
    return {**key_document(user="mallory", owner={"roles": ["admin"]}), **changes}


class Poisoned:
    """A cache that gives the same record whatever is asked for."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    async def cached_key(self, id: str) -> dict[str, Any]:
        return self.document

    async def cache_key(self, document: object, seconds: float) -> None:
        return None


STRANGE = {
    "another id": poisoned(id="0" * 12),
    "another digest": poisoned(digest="0" * 64),
    "no id": {name: value for name, value in poisoned().items() if name != "id"},
}


@pytest.mark.parametrize("document", STRANGE.values(), ids=STRANGE)
async def test_s_key_07_a_record_that_is_not_of_this_key_is_not_believed(document: dict[str, Any]) -> None:
    door = Door(cache=Poisoned(document))
    assert (await door.open(CALL)).user == "alice"
    door.open.forget(Change("keys", KEY_ID))
    door.shelf.is_away = True
    with pytest.raises(StoreUnavailable):
        await door.open(CALL)
    assert door.open.strangers == (0 if document is STRANGE["another digest"] else 2)


async def test_in_an_outage_the_cache_may_say_no_to_the_key_that_it_knows() -> None:
    door = Door(cache=Poisoned(key_document(state="revoked")))
    door.shelf.is_away = True
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_what_the_cache_says_no_to_may_be_valid_by_now() -> None:
    door = Door(cache=Poisoned(key_document(state="suspended")))
    assert (await door.open(CALL)).user == "alice"


LATER = ({"state": "paused"}, {"purpose": "robots"}, {"owner_state": "frozen"}, {"owner_state": "gone"})


@pytest.mark.parametrize("changes", LATER, ids=str)
async def test_words_of_a_later_version_let_nobody_in(changes: dict[str, str]) -> None:
    door = Door(**{name: value for name, value in changes.items() if name != "owner_state"})
    door.shelf.documents["users"] = {"id": "alice", "state": changes.get("owner_state", "active")}
    with pytest.raises(NotAuthenticated):
        await door.open(CALL)


async def test_what_only_a_later_version_can_read_is_503(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(limits={"images_per_day": 3})
    for _ in range(2):
        with pytest.raises(Unavailable):
            await door.open(CALL)
    assert len(caplog.messages) == 1
