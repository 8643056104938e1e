"""UUIDv7 (RFC 9562, section 5.7): ids that sort by the time they were made."""

import random
from datetime import datetime


class Ids:
    """Those of one source sort within a millisecond, too: there each is the last one and 1 (section 6.2,
    method 2). Seeded by the system once: to ask it for every id would cost as much as writing a record. To be
    made after a fork. Ids name records and protect nothing."""

    __slots__ = ("_bits", "_last", "_ms")

    def __init__(self) -> None:
        self._bits = random.Random(random.SystemRandom().getrandbits(256)).getrandbits  # noqa: S311
        self._ms = self._last = 0

    def __call__(self, at: datetime) -> str:
        ms = int(at.timestamp() * 1000)
        bits = self._last + 1 if ms == self._ms else self._bits(73)  # of 74: there is room to count
        self._ms, self._last = ms, bits
        variant, tail = 0x8000 | bits >> 48 & 0x3FFF, bits & 0xFFFFFFFFFFFF
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{bits >> 62:03x}-{variant:04x}-{tail:012x}"
