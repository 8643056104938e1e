"""After every fault: the gateway is idle again, and holds no more than it did before."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tests.lab.gateway import Gateway
from tests.lab.waiting import eventually_answers

IN_FLIGHT = "llmgateway_inflight_requests"
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """Open descriptors of each worker when it was idle. Take it after a first call, when pools are warm."""

    descriptors: dict[int, int]


def descriptors_of(pid: int) -> int:
    """How many files and sockets a process has open; 0 when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return 0


async def baseline_of(gateway: Gateway) -> Baseline:
    """What an idle gateway holds; waits until nothing is in flight."""
    await returns_to_idle(gateway, Baseline({}))
    return Baseline({pid: descriptors_of(pid) for pid in gateway.workers})


async def returns_to_idle(
    gateway: Gateway, baseline: Baseline, spare: int = 2, seconds: float = SECONDS
) -> None:
    """AssertionError, with what was left, when within `seconds` requests are still counted as in flight, or a
    worker has more than `spare` descriptors above its baseline (a pooled connection or two)."""
    left: list[str] = []

    async def is_idle() -> bool:
        left.clear()
        for pid, before in baseline.descriptors.items():
            if (held := descriptors_of(pid)) > before + spare:
                left.append(f"process {pid} holds {held} descriptors, before it held {before}")
        if in_flight := await gateway.metric(IN_FLIGHT):
            left.append(f"{in_flight:g} requests in flight")
        return not left

    try:
        await eventually_answers(is_idle, "the gateway is idle", seconds)
    except AssertionError:
        raise AssertionError(f"not idle after {seconds:g} s: {'; '.join(left)}") from None
