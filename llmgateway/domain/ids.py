"""UUIDv7 (RFC 9562, section 5.7): ids that sort by the time they were made."""

import random
from datetime import datetime


class Ids:
    """Seeded by the system once; asking the system for every id would cost as much as writing a record. To be
    made after a fork. Ids name records and protect nothing."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = random.Random(random.SystemRandom().getrandbits(256)).getrandbits  # noqa: S311

    def __call__(self, at: datetime) -> str:
        ms, bits = int(at.timestamp() * 1000), self._bits(74)
        variant, tail = 0x8000 | bits >> 48 & 0x3FFF, bits & 0xFFFFFFFFFFFF
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{bits >> 62:03x}-{variant:04x}-{tail:012x}"
