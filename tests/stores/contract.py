"""What every implementation of a port must do; each test module runs it against one of them.

A subclass gives the fixture `store`, or `state` and `other_state`: the same state, seen from another process.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast, get_args
from zoneinfo import ZoneInfo

import msgspec
import pytest

from llmgateway.domain.call import NO_TOKENS, Record
from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.ports import (
    Change,
    Dimension,
    Document,
    Documents,
    Kind,
    Ledger,
    RecordQuery,
    State,
    Store,
    UsageQuery,
)
from tests.lab.waiting import eventually_answers
from tests.stores.samples import NOON, floored, line, moments, record

ZONES = (
    "UTC", "Europe/Helsinki", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia",
)  # fmt: skip
DIMENSIONS: Sequence[Dimension] = get_args(Dimension)
CREATED = datetime(2026, 11, 20, 8, 30, 15, 123000, tzinfo=UTC)


def key(id: str = "k1", **changes: Any) -> Document:
    return {
        "id": id, "user": "alice", "name": "laptop", "created_at": CREATED, "expires_at": None, "revision": 0,
        "models": ["qwen3-32b"], "limits": {"per.model": {"gpt-4.1": {"until": CREATED}}, "$odd": 2**53 + 1},
        **changes,
    }  # fmt: skip


class DocumentsContract:
    @pytest.fixture
    def documents(self, store: Documents) -> Documents:
        return store

    async def test_what_is_not_there_is_none(self, documents: Documents) -> None:
        assert await documents.get("keys", "k1") is None
        assert not await documents.delete("keys", "k1")
        assert (await documents.find("keys", {}, limit=10)).data == []

    async def test_a_document_comes_back_as_it_was(self, documents: Documents) -> None:
        document = key(text="2026-11-20T08:30:15Z", nested=[1, 2.5, True, None, "ünï\u0000code", [CREATED]])
        await documents.insert("keys", document)
        assert await documents.get("keys", "k1") == document

    async def test_large_numbers_come_back_as_plain_ones(self, documents: Documents) -> None:
        """A driver's own class of number is unknown to every encoder above it."""
        await documents.insert("keys", key(limits={"cost_per_month": 5_000_000_000}))
        found = await documents.get("keys", "k1")
        assert found is not None
        assert type(found["limits"]["cost_per_month"]) is int

    async def test_times_keep_milliseconds_and_come_back_in_utc(self, documents: Documents) -> None:
        local = datetime(2026, 7, 1, 12, 0, 0, 987_654, tzinfo=ZoneInfo("Europe/Helsinki"))
        await documents.insert("keys", key(expires_at=local))
        found = await documents.get("keys", "k1")
        assert found is not None
        assert found["expires_at"] == floored(local)
        assert found["expires_at"].utcoffset() == timedelta(0)

    async def test_kinds_do_not_share_ids(self, documents: Documents) -> None:
        for kind in get_args(Kind):
            await documents.insert(kind, {"id": "same", "revision": 0, "kind": kind})
        for kind in get_args(Kind):
            assert (await documents.get(kind, "same") or {})["kind"] == kind

    async def test_a_taken_id_is_a_conflict(self, documents: Documents) -> None:
        await documents.insert("keys", key())
        with pytest.raises(Conflict):
            await documents.insert("keys", key(name="second"))
        assert (await documents.get("keys", "k1") or {})["name"] == "laptop"

    async def test_replace_needs_the_revision_before(self, documents: Documents) -> None:
        await documents.insert("keys", key())
        await documents.replace("keys", key(name="a", revision=1))
        with pytest.raises(Conflict):
            await documents.replace("keys", key(name="b", revision=1))
        with pytest.raises(Conflict):
            await documents.replace("keys", key("nobody", revision=1))
        assert await documents.get("keys", "k1") == key(name="a", revision=1)

    async def test_of_many_who_replace_at_once_one_wins(self, documents: Documents) -> None:
        await documents.insert("keys", key())
        tried = [documents.replace("keys", key(name=str(n), revision=1)) for n in range(20)]
        done = await asyncio.gather(*tried, return_exceptions=True)
        assert Counter(type(one) for one in done) == {type(None): 1, Conflict: 19}
        assert (await documents.get("keys", "k1") or {})["name"] == str(done.index(None))

    async def test_delete_says_whether_it_was_there(self, documents: Documents) -> None:
        await documents.insert("keys", key())
        assert await documents.delete("keys", "k1")
        assert not await documents.delete("keys", "k1")

    async def test_pages_in_byte_order(self, documents: Documents) -> None:
        ids = ["A", "Z", "a", "a/b", "b", "é", "漢", "😀"]
        for id in reversed(ids):
            await documents.insert("models", {"id": id, "revision": 0})
        for newest_first in (False, True):
            seen: list[str] = []
            after: str | None = None
            for _ in range(4):
                page = await documents.find("models", {}, limit=3, after=after, newest_first=newest_first)
                seen += [document["id"] for document in page.data]
                after = page.next
                if after is None:
                    break
            assert seen == sorted(ids, key=str.encode, reverse=newest_first)

    async def test_a_full_last_page_has_no_next(self, documents: Documents) -> None:
        for id in "ab":
            await documents.insert("models", {"id": id, "revision": 0})
        assert (await documents.find("models", {}, limit=2)).next is None

    async def test_filters_are_equalities(self, documents: Documents) -> None:
        await documents.insert("keys", key("1", state="active"))
        await documents.insert("keys", key("2", state="revoked"))
        await documents.insert("keys", key("3", user="bob", state="active", project=None))
        await documents.insert("keys", key("4", user="bob", state="active", project="p"))

        async def ids(**where: str | None) -> list[str]:
            return [one["id"] for one in (await documents.find("keys", where, limit=10)).data]

        assert await ids(user="alice") == ["1", "2"]
        assert await ids(user="alice", state="active") == ["1"]
        assert await ids(project=None) == ["1", "2", "3"]  # null, or not there at all
        assert await ids(id="2") == ["2"]
        assert await ids(user="' OR 1") == []

    async def test_what_cannot_be_stored_is_refused(self, documents: Documents) -> None:
        with pytest.raises(InvalidRequest):
            await documents.insert("users", {"id": "u", "revision": 0, "limit": 2**70, "name": "\ud800"})


class LedgerContract:
    @pytest.fixture
    def ledger(self, store: Ledger) -> Ledger:
        return store

    async def test_a_record_comes_back_as_it_was(self, ledger: Ledger) -> None:
        made = record(random.Random(1), NOON + timedelta(microseconds=123_456), project=None, ttft_ms=None)
        assert list(await ledger.append([made])) == []
        assert await ledger.records(RecordQuery()) == [line(made)]

    async def test_nothing_to_append(self, ledger: Ledger) -> None:
        assert list(await ledger.append([])) == []

    @pytest.mark.parametrize("count", [1, 2, 3, 255, 700])
    async def test_batches_of_any_size(self, ledger: Ledger, count: int) -> None:
        chance = random.Random(count)
        made = [record(chance, NOON + timedelta(milliseconds=n)) for n in range(count)]
        await ledger.append(made)
        assert await ledger.known([one.id for one in made]) == {one.id for one in made}

    async def test_r_acc_07_twice_and_out_of_order_counts_once(self, ledger: Ledger) -> None:
        chance = random.Random(2)
        made = [record(chance, at) for at in moments(chance, 200, NOON, NOON + timedelta(days=2))]
        await ledger.append(made[:150])
        again = [*made, *made[:50]]
        chance.shuffle(again)
        assert list(await ledger.append(again)) == []
        assert list(await ledger.append(made[::-1])) == []
        assert (await ledger.usage(UsageQuery()))[0].requests == 200
        assert await ledger.known([one.id for one in made] + ["nobody"]) == {one.id for one in made}

    async def test_r_acc_07_many_writers_of_the_same_records(self, ledger: Ledger) -> None:
        chance = random.Random(3)
        made = [record(chance, NOON + timedelta(seconds=n)) for n in range(100)]
        batches = [chance.sample(made, 60) for _ in range(8)] + [made]
        await asyncio.gather(*(ledger.append(batch) for batch in batches))
        assert sums_of(await usage(ledger)) == plain_sums(made, UsageQuery())

    async def test_the_first_version_stays(self, ledger: Ledger) -> None:
        made = record(random.Random(4), cost=1)
        await ledger.append([made])
        await ledger.append([msgspec.structs.replace(made, cost=2)])
        assert (await ledger.usage(UsageQuery()))[0].cost == 1

    async def test_what_can_never_be_stored_is_named_and_the_rest_is_stored(self, ledger: Ledger) -> None:
        chance = random.Random(5)
        good = [record(chance, NOON + timedelta(seconds=n)) for n in range(40)]
        bad = [record(chance, cost=2**70), record(chance, user="\ud800")]
        assert set(await ledger.append([*good[:20], bad[0], *good[20:], bad[1]])) == {one.id for one in bad}
        assert await ledger.known([one.id for one in [*good, *bad]]) == {one.id for one in good}

    async def test_records_are_paged_newest_first(self, ledger: Ledger) -> None:
        chance = random.Random(6)
        made = [record(chance, at) for at in moments(chance, 60, NOON, NOON + timedelta(hours=6))]
        await ledger.append(made)
        where, start, end = {"user": "alice"}, NOON + timedelta(hours=1), NOON + timedelta(hours=5)
        hers = [one.id for one in made if one.user == "alice" and start <= one.at < end]
        expected = sorted(hers, reverse=True)
        seen: list[str] = []
        while len(seen) < len(expected):
            after = seen[-1] if seen else None
            page = await ledger.records(RecordQuery(start=start, end=end, where=where, limit=4, after=after))
            assert page
            seen += [one["id"] for one in page]
        assert seen == expected
        last = RecordQuery(start=start, end=end, where=where, after=seen[-1])
        assert await ledger.records(last) == []

    @pytest.mark.parametrize(
        "filters", [{}, {"key_id": "key000000001"}, {"model": "org/other", "project": "physics"}]
    )
    async def test_filters_of_records(self, ledger: Ledger, filters: dict[str, str]) -> None:
        chance = random.Random(7)
        made = [record(chance, NOON + timedelta(seconds=n)) for n in range(60)]
        await ledger.append(made)
        expected = [line(one) for one in made if is_chosen(one, filters)]
        assert await ledger.records(RecordQuery(where=filters)) == expected[::-1]

    async def test_sums_of_nothing(self, ledger: Ledger) -> None:
        assert await ledger.usage(UsageQuery()) == []
        assert await ledger.usage(UsageQuery(by=("user", "day"))) == []

    async def test_a_range_is_exact_to_the_millisecond(self, ledger: Ledger) -> None:
        chance = random.Random(8)
        made = [record(chance, NOON + timedelta(milliseconds=n), tokens=NO_TOKENS) for n in range(5)]
        await ledger.append(made)
        query = UsageQuery(start=NOON + timedelta(milliseconds=1), end=NOON + timedelta(milliseconds=4))
        assert (await ledger.usage(query))[0].requests == 3

    @pytest.mark.parametrize("seed", range(4))
    async def test_r_acc_21_sums_are_those_of_plain_addition(self, ledger: Ledger, seed: int) -> None:
        chance = random.Random(100 + seed)
        # Around the days on which clocks change in Europe, Newfoundland, and on Lord Howe (by half an hour).
        start = chance.choice([datetime(2026, 3, 6, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)])
        end = start + timedelta(days=34)
        made = [record(chance, at) for at in moments(chance, 1500, start, end)]
        await ledger.append(made)
        for zone in ZONES:
            for _ in range(4):
                by = tuple(chance.sample(DIMENSIONS, chance.randrange(len(DIMENSIONS) + 1)))
                bounds = [chance.choice([None, *moments(chance, 3, start, end)]) for _ in "ab"]
                filters = chance.choice([{}, {"user": "cœur"}, {"project": "physics", "model": "qwen3-32b"}])
                query = UsageQuery(start=bounds[0], end=bounds[1], by=by, time_zone=zone, where=filters)
                assert sums_of(await ledger.usage(query)) == plain_sums(made, query), query

    async def test_rows_come_in_order(self, ledger: Ledger) -> None:
        chance = random.Random(9)
        times = moments(chance, 80, NOON, NOON + timedelta(days=3))
        await ledger.append([record(chance, at) for at in times])
        rows = await ledger.usage(UsageQuery(by=("project", "day")))
        groups = [tuple(row.group.values()) for row in rows]
        assert groups == sorted(groups, key=lambda group: (group[0] or "", group[1]))
        assert list(rows[0].group) == ["project", "day"]

    @pytest.mark.parametrize("zone", ["Europe/Nowhere", "Europe", "", "../../etc/passwd"])
    async def test_an_unknown_zone_is_the_callers_mistake(self, ledger: Ledger, zone: str) -> None:
        with pytest.raises(InvalidRequest):
            await ledger.usage(UsageQuery(by=("day",), time_zone=zone))

    async def test_an_unknown_filter_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="no filter outcome"):
            await ledger.usage(UsageQuery(where={"outcome": "completed"}))


class StoreContract(DocumentsContract, LedgerContract):
    async def test_it_answers(self, store: Store) -> None:
        await store.ping()
        assert store.is_healthy()


class StateContract:
    async def test_a_key_is_cached_as_it_was(self, state: State, other_state: State) -> None:
        assert await other_state.cached_key("k1") is None
        await state.cache_key(key(), 30)
        assert await other_state.cached_key("k1") == key()
        await state.cache_key(key(revision=1), 30)
        assert await other_state.cached_key("k1") == key(revision=1)

    async def test_nobody_can_change_what_is_cached(self, state: State) -> None:
        document = key()
        await state.cache_key(document, 30)
        document["models"].append("secret")
        (await state.cached_key("k1") or {})["user"] = "mallory"
        assert await state.cached_key("k1") == key()

    async def test_a_cached_key_expires(self, state: State) -> None:
        await state.cache_key(key(), 0.05)
        await state.cache_key(key("k2"), 30)

        async def is_gone() -> bool:
            return await state.cached_key("k1") is None

        await eventually_answers(is_gone, "the key has expired")
        assert await state.cached_key("k2") == key("k2")

    async def test_a_change_is_dropped_and_told_to_all(self, state: State, other_state: State) -> None:
        for id in ("k1", "k2"):
            await state.cache_key(key(id), 30)
        async with listening(state) as here, listening(other_state) as there:
            changes = [Change("keys", "k1"), Change("limits", "alice"), Change("models")]
            for change in changes:
                await state.announce(change)
            for feed in (here, there):
                assert [await soon(anext(feed)) for _ in changes] == changes
        assert await other_state.cached_key("k1") is None
        assert await other_state.cached_key("k2") == key("k2")

    @pytest.mark.parametrize("change", [Change("keys"), Change("*")])
    async def test_a_change_of_all_keys_drops_them_all(self, state: State, change: Change) -> None:
        ids = [f"k{n}" for n in range(50)]
        for id in ids:
            await state.cache_key(key(id), 30)
        await state.announce(change)
        assert [await state.cached_key(id) for id in ids] == [None] * 50

    @pytest.mark.parametrize("change", [Change("keys", "k1"), Change("keys")])
    async def test_what_was_read_before_a_change_is_not_cached(self, state: State, change: Change) -> None:
        """The fixture's state holds the place for 0.3 s."""
        await state.announce(change)
        await state.cache_key(key(state="active"), 30)
        assert await state.cached_key("k1") is None

        async def takes_again() -> bool:
            await state.cache_key(key(state="revoked"), 30)
            return await state.cached_key("k1") == key(state="revoked")

        await eventually_answers(takes_again, "the key is cached again")

    async def test_a_listener_that_left_is_forgotten(self, state: State) -> None:
        async with listening(state):
            pass
        await state.announce(Change("models"))

    async def test_it_answers(self, state: State) -> None:
        await state.ping()
        assert state.is_healthy()


@asynccontextmanager
async def listening(state: State) -> AsyncIterator[AsyncGenerator[Change, None]]:
    """Its changes, of which from now on none is missed."""
    async with aclosing(cast("AsyncGenerator[Change, None]", state.changes())) as feed:
        assert await soon(anext(feed)) == Change("*")
        yield feed


async def soon(awaitable: Any, seconds: float = 1.0) -> Any:
    return await asyncio.wait_for(awaitable, seconds)


async def usage(ledger: Ledger) -> Any:
    return await ledger.usage(UsageQuery())


Sums = dict[tuple[str | None, ...], tuple[int, ...]]


def sums_of(rows: Sequence[Any]) -> Sums:
    names = ("requests", "prompt", "completion", "cached", "reasoning", "cost")
    return {tuple(row.group.values()): tuple(getattr(row, name) for name in names) for row in rows}


def is_chosen(made: Record, filters: Mapping[str, str]) -> bool:
    return all(getattr(made, name) == value for name, value in filters.items())


def is_between(at: datetime, query: UsageQuery) -> bool:
    is_early = query.start is not None and at < floored(query.start)
    is_late = query.end is not None and at >= floored(query.end)
    return not is_early and not is_late


def plain_sums(made: Sequence[Record], query: UsageQuery) -> Sums:
    zone, sums = ZoneInfo(query.time_zone), dict[tuple[str | None, ...], tuple[int, ...]]()
    for one in made:
        at = floored(one.at)
        if not is_between(at, query) or not is_chosen(one, query.where):
            continue
        of = {"user": one.user, "model": one.model, "key": one.key_id, "project": one.project,
              "day": at.astimezone(zone).date().isoformat()}  # fmt: skip
        tokens = one.tokens
        add = (1, tokens.prompt, tokens.completion, tokens.cached, tokens.reasoning, one.cost)
        group = tuple(of[name] for name in query.by)
        sums[group] = tuple(map(sum, zip(sums.get(group, (0,) * 6), add, strict=True)))
    return sums
