"""Documents and records for tests of stores: made from a seed, so that a failure comes again."""

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from llmgateway.domain.call import Attempt, ClientInfo, Record, TargetRef, Tokens

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)
EPOCH, MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


def uuid7(at: datetime, chance: random.Random) -> str:
    value = ((at - EPOCH) // MILLISECOND) << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62
    return str(uuid.UUID(int=value | chance.getrandbits(62)))


def record(chance: random.Random, at: datetime = NOON, **changes: Any) -> Record:
    id = uuid7(at, chance)
    prompt, completion = chance.randrange(5000), chance.randrange(3000)
    made = Record(
        id=id, request_id=id, at=at, key_id=f"key{chance.randrange(4):09}",
        user=chance.choice(["alice", "bob", "cœur"]), project=chance.choice([None, "physics"]),
        model=chance.choice(["qwen3-32b", "org/other"]), price_id="qwen3-32b@1", endpoint="chat/completions",
        ended_at=at + timedelta(seconds=1.5), duration_ms=1500, ttft_ms=90, stream=True,
        client=ClientInfo("openai-python", "3.52.0"), outcome="completed", status=200,
        target=TargetRef("openai", "Qwen3-32B", "10.0.0.7:8000"),
        attempts=[Attempt("10.0.0.7:8000", 200, "ok", 1500)],
        tokens=Tokens(prompt, completion, chance.randrange(prompt + 1), chance.randrange(completion + 1)),
        usage_source="upstream", cost=chance.randrange(2**40),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def moments(chance: random.Random, count: int, start: datetime, end: datetime) -> list[datetime]:
    """Random times, a third of them within a second of a full quarter of an hour."""
    found = []
    for _ in range(count):
        at = start + (end - start) * chance.random()
        if chance.random() < 0.33:
            at = at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
            at += timedelta(milliseconds=chance.randrange(-1000, 1000))
        found.append(at)
    return found


def floored(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def line(made: Record) -> dict[str, Any]:
    """What a ledger gives back for a record."""
    plain = msgspec.json.decode(msgspec.json.encode(made))
    times = {"at": floored(made.at), "ended_at": made.ended_at and floored(made.ended_at)}
    return {"id": plain.pop("_id"), **plain, **times}
