"""Bodies as SDKs send them, with values and bytes changed, doubled, cut and inserted: never a 500, never a
hang, and the books agree afterwards."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.deployment import CHAT
from tests.lab.client import Connection, Request, chat
from tests.lab.gateway import Gateway, serving
from tests.lab.oracle import books_agree
from tests.lab.upstream import ScriptedUpstream

pytestmark = pytest.mark.e2e

ROUNDS = [400, pytest.param(40_000, marks=pytest.mark.soak)]
AT_ONCE = 8
SLOWEST = 1.0  # seconds
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}},
}
PARTS = [
    {"type": "text", "text": "ä"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]
ASKED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat("ok-1")),
    (CHAT, chat("ok-1", stream=True, stream_options={"include_usage": True})),
    (CHAT, chat("ok-1", tools=[TOOL], tool_choice="auto", parallel_tool_calls=False, n=2)),
    (CHAT, {"model": "ok-1", "messages": [{"role": "user", "content": PARTS}], "max_completion_tokens": 5}),
    (CHAT, chat("ok-1", response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {}}})),
    (
        CHAT,
        chat("ok-1", stop=["\n", "END"], temperature=0.7, seed=1, logprobs=True, user="me"),
    ),
    ("/v1/completions", {"model": "ok-1", "prompt": ["a", "b"], "max_tokens": 3, "best_of": 1}),
    ("/v1/embeddings", {"model": "ok-1", "input": [[1, 2], [3]], "encoding_format": "base64"}),
    ("/v1/responses", {"model": "ok-1", "input": [{"role": "user", "content": "a"}], "store": False}),
    ("/extras/tokenize/count", {"model": "ok-1", "input": "a b c"}),
]
PIECES = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\x00", b"null",
    b"true", b"-1", b"1e999", b"9" * 400, b'"model":', b'"stream":true,', b" " * 100, b"[" * 300,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    1.5,
    1e300,
    "",
    "ok-1",
    "\x00\u2028",
    [],
    {},
    [[]],
    {"": None},
    ["a"] * 500,
)


def exchanged(value: Any, chance: random.Random) -> Any:
    """The same with one value somewhere inside it that is another."""
    if not value or not isinstance(value, dict | list) or chance.random() < 0.2:
        return chance.choice(VALUES)
    at = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed = value.copy()
    changed[at] = exchanged(value[at], chance)
    return changed


def mutated(asked: dict[str, Any], chance: random.Random) -> bytes:
    """Half of them are JSON still."""
    if chance.random() < 0.5:
        return json.dumps(exchanged(asked, chance)).encode()
    found = bytearray(json.dumps(asked).encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.randint(1, 20))
        match chance.randrange(4):
            case 0:
                found[at:at] = chance.choice(PIECES)
            case 1:
                del found[at:end]
            case 2:
                found[at:at] = found[at:end]
            case _:
                found[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
    return bytes(found)


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_s_in_11_mutated_bodies(
    upstream: ScriptedUpstream, rounds: int, figure: Callable[[str], None]
) -> None:
    chance = random.Random(11)
    seen: Counter[int] = Counter()
    slowest = 0.0
    async with Gateway.embedded(serving(upstream.url, "ok-1"), config="drain_pause: 0\n") as gateway:
        key, pids = (await gateway.create_key()).secret, gateway.pids

        async def one(path: str, body: bytes) -> None:
            nonlocal slowest
            began = time.perf_counter()
            async with await Connection.open(gateway.base_url) as connection:
                asked = Request("POST", path, key, body=body, headers={"content-type": "application/json"})
                seen[status := (await connection.ask(asked)).status] += 1
            slowest = max(slowest, time.perf_counter() - began)
            assert status < 500, body

        for _ in range(0, rounds, AT_ONCE):
            some = [chance.choice(ASKED) for _ in range(AT_ONCE)]
            await asyncio.gather(*(one(path, mutated(asked, chance)) for path, asked in some))
        assert gateway.pids == pids
        records = await books_agree(gateway, upstream)
    figure(f"{sum(seen.values())} bodies: {dict(sorted(seen.items()))}, {len(records)} in the ledger, "
           f"the slowest {slowest * 1000:.0f} ms")  # fmt: skip
    assert slowest < SLOWEST
    assert len(seen) > 2
