"""The journal's frames: `<length u32> <CRC-32 u32> <kind u8> <payload>`, little-endian; the checksum covers
kind and payload.

CRC-32 and not CRC-32C: the standard library has it, and it finds a torn tail as well.
"""

import struct
import zlib
from collections.abc import Iterator
from mmap import mmap

_HEAD = struct.Struct("<IIB")
Buffer = bytes | mmap
MAX_PAYLOAD = 1024 * 1024

RESERVE, PROGRESS, SETTLE = 1, 2, 3


def frame(kind: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload, kind), kind) + payload


def frames(data: Buffer, at: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes, int]]:
    """Every whole frame from `at` on: kind, payload, and where the next one begins. Ends without a word at
    the first that is torn or damaged: nothing after it can be trusted."""
    end = len(data) if end is None else end
    while at + _HEAD.size <= end:
        length, checksum, kind = _HEAD.unpack_from(data, at)
        start, at = at + _HEAD.size, at + _HEAD.size + length
        payload = bytes(data[start:at])
        if not kind or length > MAX_PAYLOAD or at > end or zlib.crc32(payload, kind) != checksum:
            return
        yield kind, payload, at
