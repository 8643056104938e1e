"""UUIDv7 (RFC 9562, section 5.7): ids that sort by the time they were made."""

import secrets
from datetime import datetime


def uuid7(at: datetime) -> str:
    ms, random = int(at.timestamp() * 1000), secrets.randbits(74)
    tail = random & 0xFFFFFFFFFFFF
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{random >> 62:03x}-{0x8000 | random >> 48 & 0x3FFF:04x}-{tail:012x}"
