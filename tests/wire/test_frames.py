"""Frames: what was written whole is read whole; a torn or damaged tail ends the reading without a word."""

from hypothesis import given, strategies as st

from llmgateway.wire.frames import PROGRESS, RESERVE, SETTLE, frame, frames

PAYLOADS = [(RESERVE, b'{"a":1}'), (PROGRESS, b""), (SETTLE, b"\x00" * 40), (RESERVE, "Hej 👋".encode())]
WRITTEN = b"".join(frame(kind, payload) for kind, payload in PAYLOADS)
ENDS = [sum(len(frame(k, p)) for k, p in PAYLOADS[:n]) for n in range(1, len(PAYLOADS) + 1)]


def read(data: bytes) -> list[tuple[int, bytes]]:
    return [(kind, payload) for kind, payload, _ in frames(data)]


def test_frames_come_back() -> None:
    assert read(WRITTEN) == PAYLOADS
    assert [end for _, _, end in frames(WRITTEN)] == ENDS


def test_r_fault_42_a_tail_torn_at_every_byte() -> None:
    for at in range(len(WRITTEN) + 1):
        assert read(WRITTEN[:at]) == PAYLOADS[: sum(end <= at for end in ENDS)]


def test_zeros_after_the_last_one_are_the_end() -> None:
    assert read(WRITTEN + bytes(4096)) == PAYLOADS


@given(st.integers(0, len(WRITTEN) - 1), st.integers(1, 255))
def test_r_fault_42_no_damaged_frame_is_read(at: int, flip: int) -> None:
    damaged = bytearray(WRITTEN)
    damaged[at] ^= flip
    assert read(bytes(damaged)) == PAYLOADS[: sum(end <= at for end in ENDS)]


def test_reading_goes_on_from_a_place() -> None:
    assert [payload for _, payload, _ in frames(WRITTEN, ENDS[0], ENDS[2])] == [p for _, p in PAYLOADS[1:3]]
