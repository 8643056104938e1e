"""Where records and keys would go: shards of MongoDB under three shard keys, and Redis Cluster's slots."""

import binascii
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.stores.samples import NOON, uuid7

SLOTS = 16384
TAG = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True)
class Written:
    """What a shard key can be made of."""

    id: str
    user: str


def slot_of(key: str) -> int:
    """Redis Cluster's: of what stands in the first braces, else of the whole key."""
    tag = TAG.search(key)
    return binascii.crc_hqx((tag[1] if tag else key).encode(), 0) % SLOTS


def hashed(value: str) -> int:
    """As MongoDB does it: 64 bits of an MD5."""
    return int.from_bytes(hashlib.md5(value.encode()).digest()[:8], "little")


def written(count: int, users: int, seed: int = 7) -> Sequence[Written]:
    """One after another, 26 ms apart; few people ask much, and many ask little."""
    chance = random.Random(seed)
    names = [f"user{number}" for number in range(users)]
    weights = [1 / (rank + 1) for rank in range(users)]
    askers = chance.choices(names, weights, k=count)
    return [
        Written(uuid7(NOON + timedelta(milliseconds=26 * number), chance), user)
        for number, user in enumerate(askers)
    ]


def fullest(old: Sequence[Written], new: Sequence[Written], by: Callable[[Written], Any],
            shards: int) -> float:  # fmt: skip
    """The share of the new records that the busiest shard takes, when ranges were cut so that the old ones
    were even."""
    order = sorted(by(one) for one in old)
    bounds = [order[len(order) * number // shards] for number in range(1, shards)]
    taken = Counter(sum(by(one) >= bound for bound in bounds) for one in new)
    return max(taken.values()) / len(new)
