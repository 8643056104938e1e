"""What operators read of it: kinds, ids to go on after, its ends. Over sockets: tests/e2e/test_events.py."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from llmgateway.admin import stream
from llmgateway.admin.stream import KINDS, EventStream, mark_of
from llmgateway.control.moments import written
from llmgateway.domain.errors import NotAuthenticated, StoreUnavailable
from llmgateway.domain.live import OpenCall
from llmgateway.edge.asgi import Message
from llmgateway.jobs import happenings as happening
from llmgateway.jobs.background import Background
from llmgateway.jobs.happenings import Happenings, Mark
from tests.control.desk import Desk
from tests.lab.waiting import eventually
from tests.stores.samples import record

STREAM, COMMENT = "/admin/stream", ": keep-alive\n\n"
Event = dict[str, Any]
Follow = Callable[..., Any]


class Reader:
    """One who follows, as ASGI's other side. `stops` is a reader who does not read."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.stops = False

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.stops:
            await asyncio.get_running_loop().create_future()
        self.sent.append(message)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    def has_said(self, text: str) -> bool:
        return self.text == text

    @property
    def is_whole(self) -> bool:
        return not self.sent[-1].get("more_body", False)

    def events(self, kind: str) -> list[Event]:
        found = []
        for event in self.text.split("\n\n")[:-1]:
            fields = dict(line.partition(": ")[::2] for line in event.splitlines())
            if fields.get("event") == kind:
                found.append({"id": fields.get("id"), "data": json.loads(fields["data"])})
        return found

    async def has(self, kind: str, count: int = 1) -> list[Event]:
        await eventually(lambda: len(self.events(kind)) >= count, f"{count} {kind}")
        return self.events(kind)


class World:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.calls: list[OpenCall] = []
        self.refusal: Exception | None = None
        self.away: Exception | None = None
        self.happenings = Happenings(self.open_calls, desk.store, desk.store, desk.clock)

    async def open_calls(self) -> Sequence[OpenCall]:
        if self.away is not None:
            raise self.away
        return list(self.calls)

    async def still(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def end(self, seed: int) -> str:
        """A call; its id."""
        now = self.desk.clock.now()
        made = record(random.Random(seed), now - timedelta(seconds=1), ended_at=now)
        await self.desk.store.append([made])
        return made.id

    @asynccontextmanager
    async def follow(
        self, *kinds: str, after: Mark | None = None
    ) -> AsyncIterator[tuple[Reader, "asyncio.Task[None]"]]:
        reader = Reader()
        answer = EventStream(self.happenings, self.desk.clock, self.still, frozenset(kinds or KINDS), after)
        scope = {"type": "http", "method": "GET"}
        task = asyncio.ensure_future(answer(scope, reader.receive, reader.send))
        try:
            await eventually(lambda: bool(reader.sent), "it begins")
            yield reader, task
        finally:
            reader.gone.set()
            async with asyncio.timeout(1):
                await task


@pytest.fixture
async def world(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(happening, "PERIOD", 0.01)
    monkeypatch.setattr(stream, "LOOK", 0.01)
    made = World(desk)
    async with Background() as background:
        background.keep(made.happenings.run)
        yield made


async def test_each_kind_is_as_its_list_shows_it(world: World, client: httpx.AsyncClient) -> None:
    at = world.desk.clock.now()
    world.calls = [OpenCall(id="c", at=at, model="m", stream=True, state="open", user="aino", tokens=3)]
    async with world.follow() as (reader, _):
        (first,) = await reader.has("open")
        assert first["data"]["total"] == 1
        assert first["data"]["calls"][0]["user"] == "aino"
        assert first["data"]["calls"][0]["at"] == written(at)
        assert first["id"] is None
        await world.end(1)
        await client.post("/admin/users", json={"id": "bob"})
        (call,), (line,) = await reader.has("call"), await reader.has("audit")
        assert call["data"] == (await client.get("/admin/requests")).json()["data"][0]
        assert line["data"] == (await client.get("/admin/audit")).json()["data"][0]
        world.calls = []
        *_, last = await reader.has("open", 2)
        assert last["data"] == {"calls": [], "total": 0}
        assert len(reader.events("open")) == 2, "only when it has changed"
    head = reader.sent[0]
    headers = dict(head["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers


async def test_only_what_is_asked_for_comes(world: World, client: httpx.AsyncClient) -> None:
    async with world.follow("audit") as (reader, _), world.follow() as (other, _):
        await other.has("open")
        await world.end(1)
        await client.post("/admin/users", json={"id": "bob"})
        await other.has("call")
        (line,) = await reader.has("audit")
        assert reader.text.count("event: ") == 1
    assert mark_of(line["id"]).line == line["data"]["id"]


async def test_who_comes_back_goes_on_where_it_was(world: World, client: httpx.AsyncClient) -> None:
    async with world.follow() as (reader, _):
        await reader.has("open")
        await client.post("/admin/users", json={"id": "u1"})
        await reader.has("audit")
        first = await world.end(1)
        (call,) = await reader.has("call")
        assert call["data"]["id"] == first
    world.desk.clock.pass_seconds(1)
    missed = await world.end(2)
    await client.post("/admin/users", json={"id": "u2"})
    async with world.follow(after=mark_of(call["id"])) as (reader, _):
        await reader.has("audit")
        world.desk.clock.pass_seconds(1)
        new = await world.end(3)
        calls = await reader.has("call", 2)
        assert [one["data"]["id"] for one in calls] == [missed, new]
        assert [one["data"]["target"] for one in reader.events("audit")] == ["u2"]


async def test_a_store_that_is_away_when_one_comes_back_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(mark: Mark) -> None:
        raise StoreUnavailable("The store is away.")

    monkeypatch.setattr(world.happenings, "since", away)
    async with world.follow(after=Mark(0)) as (reader, _):
        (skipped,) = await reader.has("skipped")
    assert skipped["data"] == {"events": None}


async def test_who_comes_back_while_a_store_is_away_waits_for_it(world: World) -> None:
    missed = await world.end(1)
    world.away = StoreUnavailable("The store is away.")
    async with world.follow(after=Mark(0)) as (reader, _):
        await eventually(partial(reader.has_said, COMMENT), "it begins")
        world.desk.clock.pass_seconds(stream.SILENCE)
        await eventually(partial(reader.has_said, COMMENT * 2), "a comment")
        world.away = None
        (call,) = await reader.has("call")
        assert call["data"]["id"] == missed


async def test_silence_is_broken_by_comments(world: World) -> None:
    async with world.follow("call") as (reader, _):
        await eventually(lambda: reader.text == COMMENT, "proxies pass the head on with it")
        for count in (2, 3):
            world.desk.clock.pass_seconds(stream.SILENCE)
            await eventually(partial(reader.has_said, COMMENT * count), "a comment")


async def test_it_ends_with_the_right_to_follow(world: World) -> None:
    async with world.follow() as (reader, task):
        world.refusal = StoreUnavailable("The store is away.")
        world.desk.clock.pass_seconds(stream.ASK_AGAIN)
        await reader.has("open")
        await asyncio.sleep(0.02)
        assert not task.done(), "nobody can tell"
        world.refusal = NotAuthenticated()
        world.desk.clock.pass_seconds(stream.ASK_AGAIN)
        await eventually(task.done, "it is over")
        assert reader.is_whole


async def test_it_ends_with_the_gateway(world: World) -> None:
    async with world.follow() as (reader, task):
        await reader.has("open")
        world.happenings.end()
        await eventually(task.done, "it is over")
        assert reader.is_whole


async def test_a_reader_who_does_not_read_holds_up_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.follow() as (reader, task):
        await reader.has("open")
        reader.stops = True
        monkeypatch.setattr(stream, "LAST_SECONDS", 0.01)
        world.happenings.end()
        await eventually(task.done, "it is cut")
        assert not reader.is_whole


async def test_a_reader_who_does_not_read_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SEND_SECONDS", 0.02)
    async with world.follow() as (reader, task):
        await reader.has("open")
        reader.stops = True
        await world.end(1)
        await eventually(task.done, "it is cut")
        assert not reader.is_whole


async def test_who_hangs_up_is_forgotten(world: World) -> None:
    async with world.follow() as (reader, task):
        await reader.has("open")
        reader.gone.set()
        await eventually(task.done, "it is over")
    assert not world.happenings._followers


@pytest.mark.parametrize(
    ("asked", "headers", "param"),
    [
        ("?events=weather", {}, "events"),
        ("?after=yesterday", {}, "after"),
        ("", {"last-event-id": "1.2"}, "after"),
        ("?limit=3", {}, "limit"),
    ],
)
async def test_what_cannot_be_is_refused(
    client: httpx.AsyncClient, asked: str, headers: dict[str, str], param: str
) -> None:
    answer = await client.get(f"{STREAM}{asked}", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_a_look_at_its_head_ends(client: httpx.AsyncClient) -> None:
    answer = await client.head(STREAM)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"


async def test_too_many_are_told_so(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happening, "MOST_FOLLOWERS", 0)
    answer = await client.get(STREAM)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "overloaded"
