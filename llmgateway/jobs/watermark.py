"""Memory and file descriptors: near its limit a process takes nothing new on, so that what is open can end.

The limit of memory is the tightest of the control group's, the address space's (`ulimit -v`) and the
machine's. Where the system tells none of them (no Linux), there is no watermark.
"""

import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

HIGH, LOW = 0.95, 0.90  # of the limit: from where on nothing is taken, and until where
PERIOD = 0.5  # seconds between two looks
GROUPS = (
    ("memory.max", "memory.current"),  # version 2
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
NO_LIMIT = 1 << 60  # version 1 writes about this for none


class Use(NamedTuple):
    """What is in use, bytes or a number, and how much of it there may be."""

    used: int
    limit: int
    what: str = "memory"


def uses(group: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self")) -> list[Use]:
    """All limits that this process has, with what counts against each."""
    return [*_of_group(group), *_of_process(process), *_of_descriptors()]


class Watermark:
    """`is_high` from 95 % of any limit on, until all are below 90 % again."""

    def __init__(self, read: Callable[[], list[Use]] = uses) -> None:
        self._read = read
        self.is_high = False
        self._short_of = ""

    def look(self) -> None:
        share, use = max(((use.used / use.limit, use) for use in self._read()), default=(0.0, None))
        was_high, self.is_high = self.is_high, share >= (LOW if self.is_high else HIGH)
        if self.is_high and not was_high and use is not None:
            self._short_of = use.what
            log.error("%s nearly used up, %d of %d: no new calls are taken", use.what, use.used, use.limit)
        elif was_high and not self.is_high:
            log.info("there is room again: %s", self._short_of)


def _of_group(group: Path) -> list[Use]:
    for limit_name, used_name in GROUPS:
        try:
            limit, used = (group / limit_name).read_text().strip(), (group / used_name).read_text()
        except OSError:
            continue
        if limit == "max" or int(limit) >= NO_LIMIT:
            return []
        return [Use(int(used) - _reclaimable(group / used_name), int(limit))]
    return []


def _reclaimable(used: Path) -> int:
    """Cached files count as used, and are given up as soon as memory is short: the journal's, for one."""
    try:
        lines = (used.parent / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))


def _of_process(process: Path) -> list[Use]:
    try:
        pages, resident = (int(part) for part in (process / "statm").read_text().split()[:2])
        machine = os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return []
    size = os.sysconf("SC_PAGE_SIZE")
    found = [Use(resident * size, machine * size)]
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        found.append(Use(pages * size, most))
    return found


def _of_descriptors() -> list[Use]:
    """The lowest one that is free is nearly the number of those in use, and costs no look at all of them."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return []
    try:
        free = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        free = most
    else:
        os.close(free)
    return [Use(free, most, "file descriptors")]
