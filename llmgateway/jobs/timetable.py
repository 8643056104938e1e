"""Periodic work: when each job is due, that one process of the fleet does it, and how it went.

The `schedule` package keeps the times, by the clock on the wall; when that is set, or summer ends, all times
move along, so no job waits an hour for it. A job begins only while this process leads and never beside itself
or its hand-started twin; when another process has taken the lead, jobs that still run here are cut off.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NoReturn, Protocol

import schedule
from msgspec import Struct

from llmgateway.domain.errors import Conflict, StoreUnavailable
from llmgateway.domain.ports import Clock, Documents
from llmgateway.domain.upkeep import Lead
from llmgateway.jobs.background import Background

log = logging.getLogger(__name__)

TICK = 0.5  # seconds between two looks at what is due
LEAD_PERIOD = 3.0  # seconds between two looks at who leads
AGAIN = 10.0  # seconds after which a job is tried again that had to wait for a store
JUMP = timedelta(seconds=5)  # of the clock on the wall, from which on times are moved
DAILY = timedelta(hours=23)  # since the last success, wherever in the fleet that was

Done = Mapping[str, int]


class Work(Protocol):
    """Does what there is to do now; returns how much of what it did, zeros where there was nothing."""

    def __call__(self) -> Awaitable[Done]: ...


class Job(Struct, frozen=True, kw_only=True):
    """Due every `seconds`, a random number between these two. `is_daily`: done once a day in the fleet, so
    what is due then is the look whether it was. `is_quiet`: what it does is no news."""

    name: str
    work: Work
    seconds: tuple[int, int]
    is_daily: bool = False
    is_quiet: bool = False


class Progress(Struct):
    """How a job has gone in this process. `seconds` is how long the last run took."""

    succeeded_at: datetime | None = None
    seconds: float = 0.0
    failures: int = 0
    is_failing: bool = False


class Timetable:
    """`store` remembers when daily jobs were done."""

    def __init__(
        self, jobs: Sequence[Job], lead: Lead, background: Background, store: Documents, clock: Clock
    ) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.progress = {job.name: Progress() for job in jobs}
        self.leads = self._has_resigned = False
        self._lead = lead
        self._background = background
        self._store = store
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, float] = {}  # when, by the steady clock
        self._schedule = schedule.Scheduler()
        for job in jobs:
            first, last = job.seconds
            self._schedule.every(first).to(last).seconds.do(self.soon, job.name)
        self._ahead = self._wall() - timedelta(seconds=clock.monotonic())

    def soon(self, name: str) -> None:
        """Begins the job where this process leads, unless it runs."""
        if self.leads and name not in self._running:
            self._again.pop(name, None)
            task = self._background.create_task(self._run(self.jobs[name]))
            self._running[name] = task
            task.add_done_callback(lambda _: self._running.pop(name, None))

    async def run(self) -> NoReturn:
        """For ever."""
        next_look = self._clock.monotonic()
        while True:
            if self._clock.monotonic() >= next_look:
                await self._look_who_leads()
                next_look = self._clock.monotonic() + LEAD_PERIOD
            self._follow_the_wall()
            self._schedule.run_pending()
            self._try_again()
            await asyncio.sleep(TICK)

    async def resign(self) -> None:
        """At the end, for good: another begins soon, and does not wait until the lock has run out."""
        self._has_resigned = True
        if self.leads:
            self._cut_off()
            try:
                await self._lead.resign()
            except StoreUnavailable as error:
                log.info("the lead runs out by itself", extra={"fields": {"reason": error.message}})

    async def _look_who_leads(self) -> None:
        try:
            leads = not self._has_resigned and await self._lead.is_mine()
        except StoreUnavailable:
            leads = False
        if self.leads and not leads:
            log.warning("periodic work is another process's now, or nobody's: this one has lost the lead")
            self._cut_off()
        elif leads and not self.leads:
            self.leads = True
            log.info("this process does the periodic work")
            for name in self.jobs:
                self.soon(name)

    def _cut_off(self) -> None:
        self.leads = False
        self._again.clear()
        for task in self._running.values():
            task.cancel()
        for progress in self.progress.values():
            progress.is_failing = False  # how it goes is the next leader's to tell

    def _try_again(self) -> None:
        now = self._clock.monotonic()
        for name in [name for name, when in self._again.items() if when <= now]:
            self.soon(name)

    def _follow_the_wall(self) -> None:
        ahead = self._wall() - timedelta(seconds=self._clock.monotonic())
        jump = ahead - self._ahead
        if abs(jump) > JUMP:
            log.info(
                "the clock was set: times move along", extra={"fields": {"seconds": jump.total_seconds()}}
            )
            for due in self._schedule.jobs:
                due.next_run = None if due.next_run is None else due.next_run + jump
            self._ahead = ahead

    def _wall(self) -> datetime:
        return self._clock.now().astimezone().replace(tzinfo=None)

    # --- a run ---

    async def _run(self, job: Job) -> None:
        progress = self.progress[job.name]
        began = self._clock.monotonic()
        try:
            if job.is_daily and not await self._is_due(job):
                self._is_well(job, progress)
                return
            done = await job.work()
            if job.is_daily:
                await self._note(job)
        except StoreUnavailable as error:
            self._failed(job, progress, error)
            return
        except Exception:
            log.exception("%s failed", job.name)
            progress.failures += 1
            progress.is_failing = True
            return
        progress.seconds = self._clock.monotonic() - began
        progress.succeeded_at = self._clock.now()
        self._succeeded(job, progress, done)

    def _succeeded(self, job: Job, progress: Progress, done: Done) -> None:
        self._is_well(job, progress)
        if any(done.values()):
            fields = {**done, "seconds": round(progress.seconds, 3)}
            log.log(
                logging.DEBUG if job.is_quiet else logging.INFO, "%s done", job.name, extra={"fields": fields}
            )

    def _is_well(self, job: Job, progress: Progress) -> None:
        if progress.is_failing:
            progress.is_failing = False
            log.info("%s works again", job.name)

    def _failed(self, job: Job, progress: Progress, error: StoreUnavailable) -> None:
        """One line for as long as a store is away."""
        progress.failures += 1
        if not progress.is_failing:
            log.warning("%s has to wait", job.name, extra={"fields": {"reason": error.message}})
        progress.is_failing = True
        self._again[job.name] = self._clock.monotonic() + AGAIN

    async def _is_due(self, job: Job) -> bool:
        seen = await self._store.get("jobs", job.name)
        if seen is None:
            return True
        age = self._clock.now() - seen["succeeded_at"]
        return not timedelta(0) <= age < DAILY  # a time to come is one that a wrong clock wrote

    async def _note(self, job: Job) -> None:
        seen = await self._store.get("jobs", job.name)
        note = {"id": job.name, "revision": 0, "succeeded_at": self._clock.now()}
        try:
            if seen is None:
                await self._store.insert("jobs", note)
            else:
                await self._store.replace("jobs", {**note, "revision": seen["revision"] + 1})
        except Conflict:
            log.debug("another process has noted %s meanwhile", job.name)
