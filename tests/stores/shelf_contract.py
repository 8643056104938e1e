"""What every shelf must do; each test module runs it against one. Short lives are really waited for.

A subclass gives the fixtures `shelf` and `other_shelf`: the same one, seen from another process.
"""

import asyncio

from llmgateway.domain.ports import Shelf
from tests.lab.waiting import eventually_answers

SHORT, LONG = 0.15, 600.0


async def is_gone(shelf: Shelf, id: str) -> bool:
    return await shelf.get("sessions", id) is None


class ShelfContract:
    async def test_what_was_put_is_there_for_every_process(self, shelf: Shelf, other_shelf: Shelf) -> None:
        value = bytes(range(256))
        await shelf.put("sessions", "a/b:c", value, LONG)
        assert await other_shelf.get("sessions", "a/b:c") == value
        await other_shelf.put("sessions", "a/b:c", b"", LONG)
        assert await shelf.get("sessions", "a/b:c") == b""

    async def test_shelves_do_not_share_ids(self, shelf: Shelf) -> None:
        await shelf.put("sessions", "a", b"1", LONG)
        assert await shelf.get("logins", "a") is None
        assert not await shelf.delete("logins", "a")
        assert await shelf.get("sessions", "a") == b"1"

    async def test_what_is_over_is_gone(self, shelf: Shelf) -> None:
        await shelf.put("sessions", "a", b"1", SHORT, owner="alice")
        await shelf.put("sessions", "b", b"1", LONG)
        await eventually_answers(lambda: is_gone(shelf, "a"), "a value ends")
        assert await shelf.take("sessions", "a") is None
        assert not await shelf.delete("sessions", "a")
        assert not await shelf.touch("sessions", "a", LONG)
        assert not await shelf.touch("sessions", "a", LONG, b"2")
        assert await shelf.owned("sessions", "alice") == {}
        assert await shelf.get("sessions", "b") == b"1"

    async def test_of_many_takers_one_gets_it(self, shelf: Shelf, other_shelf: Shelf) -> None:
        await shelf.put("logins", "a", b"1", LONG)
        takers = [one.take("logins", "a") for one in (shelf, other_shelf) for _ in range(10)]
        assert sorted(filter(None, await asyncio.gather(*takers))) == [b"1"]
        assert await shelf.get("logins", "a") is None

    async def test_of_many_who_add_one_is_first(self, shelf: Shelf, other_shelf: Shelf) -> None:
        adders = [
            one.add("seen", "a", str(n).encode(), LONG) for one in (shelf, other_shelf) for n in range(10)
        ]
        assert sorted(await asyncio.gather(*adders)) == [False] * 19 + [True]
        first = await shelf.get("seen", "a")
        assert not await shelf.add("seen", "a", b"late", LONG)
        assert await shelf.get("seen", "a") == first

    async def test_what_was_added_can_be_added_again_when_it_is_over(self, shelf: Shelf) -> None:
        assert await shelf.add("seen", "a", b"1", SHORT)

        async def is_free() -> bool:
            return await shelf.add("seen", "a", b"2", LONG)

        await eventually_answers(is_free, "the place is free again")
        assert await shelf.get("seen", "a") == b"2"

    async def test_a_deleted_value_does_not_come_back(self, shelf: Shelf, other_shelf: Shelf) -> None:
        await shelf.put("sessions", "a", b"1", LONG)
        assert await shelf.delete("sessions", "a")
        assert not await shelf.delete("sessions", "a")
        assert not await other_shelf.touch("sessions", "a", LONG, b"2")
        assert await other_shelf.get("sessions", "a") is None

    async def test_a_touch_begins_the_life_anew(self, shelf: Shelf) -> None:
        await shelf.put("sessions", "a", b"1", SHORT)
        await shelf.put("sessions", "b", b"1", LONG)
        assert await shelf.touch("sessions", "a", LONG)
        assert await shelf.touch("sessions", "b", SHORT, b"2")
        assert await shelf.get("sessions", "b") == b"2"
        await eventually_answers(lambda: is_gone(shelf, "b"), "the shortened one ends")
        assert await shelf.get("sessions", "a") == b"1"

    async def test_counting(self, shelf: Shelf, other_shelf: Shelf) -> None:
        counts = await asyncio.gather(*(one.count("tries", "a", LONG) for one in (shelf, other_shelf) * 5))
        assert sorted(counts) == list(range(1, 11))
        assert await shelf.count("tries", "b", SHORT) == 1

        async def begins_anew() -> bool:
            return await shelf.count("tries", "b", SHORT) == 1

        await eventually_answers(begins_anew, "a count ends with its time")
        assert await shelf.count("tries", "a", LONG) == 11
        assert await shelf.delete("tries", "a")
        assert await shelf.count("tries", "a", LONG) == 1

    async def test_what_an_owner_has(self, shelf: Shelf, other_shelf: Shelf) -> None:
        for id, owner in (("a", "alice"), ("b", "alice"), ("c", "bob"), ("d", "alice")):
            await shelf.put("sessions", id, id.encode(), LONG, owner=owner)
        await shelf.put("logins", "e", b"e", LONG, owner="alice")
        await other_shelf.touch("sessions", "b", LONG, b"touched")
        await other_shelf.delete("sessions", "d")
        for one in (shelf, other_shelf):
            assert await one.owned("sessions", "alice") == {"a": b"a", "b": b"touched"}
            assert await one.owned("sessions", "carol") == {}
