"""Periodic work put together: which jobs there are, how often, over which stores."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from llmgateway.app.memory import Memory
from llmgateway.control.absence import Absence
from llmgateway.control.audit import Actor
from llmgateway.control.erasure import Erasure
from llmgateway.control.expiry import warn_of_expiry
from llmgateway.control.services import Control
from llmgateway.domain.ports import Clock
from llmgateway.domain.upkeep import Lead
from llmgateway.jobs.background import Background
from llmgateway.jobs.compare import Comparison
from llmgateway.jobs.reconcile import Found, Left, Reconciliation
from llmgateway.jobs.timetable import Job, Timetable
from llmgateway.jobs.warm import PERIOD as WARM_PERIOD, KeyCache
from llmgateway.settings import Settings
from llmgateway.stores.lead import LoneLead, RedisLead
from llmgateway.stores.survey import dead_letters, survey
from llmgateway.stores.warmth import RedisWarmth

ACTOR = Actor("llmgateway", "jobs")
ROLL_UP, WARM, RETENTION, EXPIRY, RECONCILE = "roll_up", "key_cache", "retention", "key_expiry", "reconcile"
ABSENCE, GONE, GONE_LONG, LIMITS = "absence", "gone", "gone_long", "limits"
ROLL_UP_PERIOD, LOOK_PERIOD = (20, 40), (1200, 1800)  # seconds; a look is whether a daily job is due
GONE_PERIOD = (40, 60)  # seconds in which a late record may name somebody who is gone
LIMITS_PERIOD = (60, 120)  # seconds in which a sum of a limit may have drifted
COLD_PERIOD = 2.0  # seconds between two looks whether Redis has come back empty
OLD_SECONDS = 60.0  # from when on records that wait are told of

Settled = Callable[[], Settings]


class Periodic(Struct, frozen=True):
    """What runs again and again."""

    timetable: Timetable
    reconciliation: Reconciliation
    keys: KeyCache | None
    comparison: Comparison

    async def run(self) -> NoReturn:
        await self.timetable.run()

    async def keep_warm(self) -> None:
        """A Redis that has lost everything is filled at once, and not only when it is time."""
        while self.keys is not None:
            await asyncio.sleep(COLD_PERIOD)
            if self.timetable.leads and await self.keys.is_cold():
                self.timetable.soon(WARM)


class Parts(Struct, frozen=True):
    """What periodic work is made of."""

    memory: Memory
    control: Control
    background: Background
    clock: Clock
    journals: Path
    recover: Callable[[], Awaitable[int]]
    erasure: Erasure
    comparison: Comparison


def periodic_work(parts: Parts, settings: Settled, *, name: str) -> Periodic:
    """`settings` are asked at every run: they may change. `name` is this process's."""
    memory, clock = parts.memory, parts.clock
    lead: Lead = LoneLead()
    keys: KeyCache | None = None  # a process that is alone has no cache beside its own
    if memory.redis is not None:
        lead = RedisLead(memory.redis, name=name)
        keys = KeyCache(memory.store, memory.state, RedisWarmth(memory.redis))
    reconciliation = Reconciliation(
        memory.ledger, clock, survey=lambda: left_in(parts.journals), recover=parts.recover
    )
    jobs = list(_jobs(parts, settings, keys, reconciliation))
    return Periodic(Timetable(jobs, lead, parts.background, memory.store, clock), reconciliation, keys,
                    parts.comparison)  # fmt: skip


def _jobs(
    parts: Parts, settings: Settled, keys: KeyCache | None, reconciliation: Reconciliation
) -> Iterator[Job]:
    memory, control, clock = parts.memory, parts.control, parts.clock

    async def roll_up() -> dict[str, int]:
        return {"rolled": await memory.ledger.roll_up()}

    async def retention() -> dict[str, int]:
        kept, now = settings().file.retention, clock.now()
        dropped = dict(await memory.ledger.drop(kept, now))
        if kept.audit is not None:
            dropped["audit"] = await control.audit.trim(ACTOR, now - timedelta(days=kept.audit))
        return dropped

    async def expiry() -> dict[str, int]:
        days = settings().file.key_expiry_warning
        return {"keys": await warn_of_expiry(memory.store, control.audit, clock, days) if days else 0}

    async def absence() -> dict[str, int]:
        people = Absence(memory.store, memory.state, control.audit, clock)
        return await people.look(settings().file.policy.keys)

    yield Job(name=ROLL_UP, work=roll_up, seconds=ROLL_UP_PERIOD, is_quiet=True)
    if keys is not None:
        yield Job(name=WARM, work=keys.fill, seconds=WARM_PERIOD, is_quiet=True)
    yield Job(name=RETENTION, work=retention, seconds=LOOK_PERIOD, is_daily=True)
    yield Job(name=EXPIRY, work=expiry, seconds=LOOK_PERIOD, is_daily=True)
    yield Job(name=ABSENCE, work=absence, seconds=LOOK_PERIOD)
    yield Job(name=GONE, work=parts.erasure.look, seconds=GONE_PERIOD)
    yield Job(name=GONE_LONG, work=lambda: parts.erasure.look(None), seconds=LOOK_PERIOD, is_daily=True)
    yield Job(name=LIMITS, work=parts.comparison.work, seconds=LIMITS_PERIOD, is_quiet=True)
    yield Job(name=RECONCILE, work=reconciliation.work, seconds=LOOK_PERIOD, is_daily=True)


async def left_in(journals: Path) -> Left:
    """In a thread: they may be large."""
    return await asyncio.to_thread(_left_in, journals)


def _left_in(journals: Path) -> Left:
    workers = survey(journals)
    settled = {id: record for worker in workers for id, record in worker.settled.items()}
    orphans = {id for worker in workers if not worker.is_alive for id in worker.open}
    return Left(settled, len(orphans - settled.keys()), sum(1 for _ in dead_letters(journals)))


Values = Sequence[tuple[str, tuple[str, ...], float]]


def values_of(periodic: Periodic) -> Values:
    """Its metrics: family, labels, value."""
    timetable, found = periodic.timetable, periodic.reconciliation.last
    values: list[tuple[str, tuple[str, ...], float]] = [
        ("leader", (), timetable.leads),
        ("limit_sums_healed", (), periodic.comparison.healed),
    ]
    for name, progress in timetable.progress.items():
        values.append(("job_failures", (name,), progress.failures))
        if progress.succeeded_at is not None:
            values.append(("job_duration_seconds", (name,), progress.seconds))
            values.append(("job_last_success_timestamp_seconds", (name,), progress.succeeded_at.timestamp()))
    if found is not None:
        values += [("ledger_faults", (kind,), getattr(found, kind)) for kind in Found.__struct_fields__]
    return values


def failing(periodic: Periodic) -> list[str]:
    """Jobs that cannot do their work now."""
    return [f"job {name}" for name, progress in periodic.timetable.progress.items() if progress.is_failing]
