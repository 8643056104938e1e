"""What is killed, and what people see meanwhile."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.disasters.network import HubValkey, Node, Placed
from tests.disasters.trio import Trio
from tests.e2e.deployment import CHAT
from tests.lab.balancer import Haproxy
from tests.lab.client import chat, fetch, post
from tests.lab.gateway import ADMIN_KEY
from tests.lab.oracle import books_agree
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

PLAIN, STREAM = "ok-3", "ok-20x20ms"
BEFORE, DURING, AFTER = 1.0, 12.0, 4.0  # seconds
LIMIT = 30  # calls a minute of the one who is limited
PAUSE = 0.05  # between two calls of a person


@dataclass
class Seen:
    """`pause` is the longest that nobody had an answer that is whole, `wait` the longest that one person had
    none; `unready` for how long each node said that it is not, or said nothing."""

    whole: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    pause: float = 0.0
    wait: float = 0.0
    limited: int = 0
    unready: dict[str, float] = field(default_factory=dict)
    new_key: float = -1.0  # seconds from the kill until a key could be made and used
    records: int = 0

    def told(self) -> dict[str, Any]:
        return {**vars(self), "failed": dict(self.failed)}


@dataclass(frozen=True)
class Stage:
    nodes: Sequence[Node]
    gateways: Sequence[Placed]
    valkey: HubValkey
    mongo: Trio
    upstream: ScriptedUpstream
    balancer: Haproxy

    async def is_whole(self) -> bool:
        return (
            all([await gateway.is_ready() for gateway in self.gateways])
            and await self.balancer.up() == len(self.gateways)
            and await asyncio.to_thread(self.mongo.is_whole)
        )


@dataclass(frozen=True)
class Scene:
    """`breaks` gives what makes it whole again."""

    name: str
    breaks: Callable[[Stage], Callable[[], None]]


class Crowd:
    """People who ask through the balancer until they are told to stop."""

    def __init__(self, stage: Stage, seen: Seen) -> None:
        self._url = stage.balancer.url
        self._stage = stage
        self._seen = seen
        self._is_over = asyncio.Event()
        self._last = time.monotonic()  # when anybody had one

    async def person(self, key: str, model: str) -> None:
        last = time.monotonic()
        while not self._is_over.is_set():
            said = await self._ask(key, model)
            now = time.monotonic()
            if said is None:
                self._seen.whole += 1
                self._seen.wait = max(self._seen.wait, now - last)
                self._seen.pause = max(self._seen.pause, now - self._last)
                last = self._last = now
            else:
                self._seen.failed[said] += 1
            await asyncio.sleep(PAUSE)
        self._seen.wait = max(self._seen.wait, time.monotonic() - last)

    async def limited(self, key: str) -> None:
        while not self._is_over.is_set():
            self._seen.limited += await self._ask(key, PLAIN) is None
            await asyncio.sleep(PAUSE)

    async def _ask(self, key: str, model: str) -> str | None:
        """What went wrong."""
        try:
            answer = await fetch(self._url, post(CHAT, chat(model, stream=model == STREAM), key))
        except (OSError, EOFError):
            return "cut"
        if answer.status != 200:
            return str(answer.status)
        return None if model == PLAIN or answer.body.endswith(b"data: [DONE]\n\n") else "cut"

    async def watch(self, gateway: Placed) -> None:
        name = gateway.address
        while not self._is_over.is_set():
            began = time.monotonic()
            is_ready = await gateway.is_ready()
            await asyncio.sleep(PAUSE)
            if not is_ready:
                self._seen.unready[name] = self._seen.unready.get(name, 0) + time.monotonic() - began

    async def newcomer(self, began: float) -> None:
        """A key that nobody knows yet: made and used."""
        body = {"user": f"new-{began}", "name": "new"}

        async def is_served() -> bool:
            try:
                made = await fetch(self._url, post("/admin/keys", body, ADMIN_KEY))
            except (OSError, EOFError):
                return False
            return made.status == 201 and await self._ask(made.json["key"], PLAIN) is None

        await eventually_answers(is_served, "a new key works", 60)
        self._seen.new_key = time.monotonic() - began

    def stop(self) -> None:
        self._is_over.set()


async def play(stage: Stage, scene: Scene) -> Seen:
    """A second of peace, the blow, what comes of it, and the way back."""
    await eventually_answers(stage.is_whole, "all is well", 60)
    seen = Seen()
    crowd = Crowd(stage, seen)
    first = stage.gateways[0]
    key = (await first.create_key(f"user of {scene.name}")).secret
    limits = {"requests_per_minute": LIMIT}
    limited = (await first.create_key(f"limited {scene.name}", limits=limits)).secret
    for gateway in stage.gateways:  # known to all
        assert (await gateway.ask(post(CHAT, chat(PLAIN), key))).status == 200
    async with asyncio.TaskGroup() as tasks:
        for model in (PLAIN, PLAIN, STREAM, STREAM):
            tasks.create_task(crowd.person(key, model))
        tasks.create_task(crowd.limited(limited))
        for gateway in stage.gateways:
            tasks.create_task(crowd.watch(gateway))
        await asyncio.sleep(BEFORE)
        began = time.monotonic()
        mend = await asyncio.to_thread(scene.breaks, stage)
        newcomer = tasks.create_task(crowd.newcomer(began))
        await asyncio.sleep(DURING)
        await asyncio.to_thread(mend)
        await asyncio.sleep(AFTER)
        await newcomer
        crowd.stop()
    await eventually_answers(stage.is_whole, "all is well again", 60)
    seen.records = len(await books_agree(stage.gateways[0], stage.upstream, 60))
    return seen


# --- what breaks ---


def whole_node(stage: Stage) -> Callable[[], None]:
    program = stage.gateways[1].program
    program.kill()
    return program.start


def master(stage: Stage) -> Callable[[], None]:
    """gunicorn's own process alone: its workers see that it is gone, and end."""
    gateway = stage.gateways[1]
    os.kill(gateway.pid, signal.SIGKILL)

    def again() -> None:
        gateway.program.kill()
        gateway.program.start()

    return again


def worker(stage: Stage) -> Callable[[], None]:
    os.kill(stage.gateways[1].workers[0], signal.SIGKILL)
    return lambda: None


def cable(stage: Stage) -> Callable[[], None]:
    stage.nodes[1].cut()
    return stage.nodes[1].mend


def redis(stage: Stage) -> Callable[[], None]:
    stage.valkey.kill()
    return stage.valkey.start


def stopped_redis(stage: Stage) -> Callable[[], None]:
    """It comes back with all that it knew."""
    stage.valkey.freeze()
    return stage.valkey.thaw


def primary(stage: Stage) -> Callable[[], None]:
    member = stage.mongo.primary()
    member.kill()
    return member.start


def secondary(stage: Stage) -> Callable[[], None]:
    member = stage.mongo.secondary()
    member.kill()
    return member.start


def majority(stage: Stage) -> Callable[[], None]:
    first, second = stage.mongo.primary(), stage.mongo.secondary()
    first.kill()
    second.kill()

    def again() -> None:
        first.start()
        second.start()

    return again


SCENES = (
    Scene("a worker", worker), Scene("gunicorn's master", master), Scene("a whole gateway", whole_node),
    Scene("the cable of a node", cable), Scene("Redis, and what it knew", redis),
    Scene("Redis, for a while", stopped_redis), Scene("MongoDB's primary", primary),
    Scene("MongoDB's secondary", secondary), Scene("two of three of MongoDB", majority),
)  # fmt: skip
