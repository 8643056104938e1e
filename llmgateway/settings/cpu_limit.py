"""How many processors this process may use: workers beyond that only wait for each other."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def cpus(cgroups: Path = CGROUPS) -> int:
    """At least one. A container's limit goes before what the machine has; a broken part counts as one."""
    return max(1, _limit(cgroups) or _allowed())


def _limit(cgroups: Path) -> int | None:
    """The quota by version 2 of control groups, or by version 1."""
    for words in (
        _words(cgroups / "cpu.max"),
        [*_words(cgroups / "cpu/cpu.cfs_quota_us"), *_words(cgroups / "cpu/cpu.cfs_period_us")],
    ):
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):
            quota, period = map(int, words)
            return math.ceil(quota / period)
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
