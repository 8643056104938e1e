"""The ASGI application: its life, its surfaces, and its end."""

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from llmgateway import __version__
from llmgateway.admin import routes as admin
from llmgateway.admin.gate import Gate
from llmgateway.admin.operations import Desk
from llmgateway.app.federated import prepare
from llmgateway.app.in_force import InForce
from llmgateway.app.portal import portal_of
from llmgateway.app.services import Services, open_services, samples_of, standings_now, troubles
from llmgateway.domain.errors import ShuttingDown
from llmgateway.domain.ids import Ids
from llmgateway.domain.ports import SystemClock
from llmgateway.edge import documents
from llmgateway.edge.machines import Condition, Exposition, Machines
from llmgateway.edge.middleware import HANDLERS, Envelope
from llmgateway.edge.models import Models
from llmgateway.edge.openapi import openapi
from llmgateway.edge.programs import Programs, endpoint_at
from llmgateway.flow.authenticate import STALE_SECONDS
from llmgateway.jobs.ticks import every
from llmgateway.observability.exposition import exposed
from llmgateway.observability.logs import configure
from llmgateway.portal.address import Addresses
from llmgateway.settings import BadSettings, Settings, of_this_process, with_secrets
from llmgateway.wire.outbox import Outbox

log = logging.getLogger(__name__)

LOOK_PERIOD = 1.0  # seconds between two looks at how the parts are
CUT_SECONDS = 5.0  # for calls that were cut off to come to their end
SHIP_SECONDS = 10.0  # for the last records to reach the store
WAIT_STEP = 0.05
SWITCH_SECONDS = 0.0005  # a busy loop must not keep the journal's thread from syncing


class Llmgateway(Starlette):
    """Calls go their own way, before middleware and router: they are nearly all there is."""

    def __init__(self, settings: Settings, *, drain_pause: float | None = None) -> None:
        super().__init__(exception_handlers=HANDLERS, lifespan=lambda _: self._live())
        self.router.redirect_slashes = False
        self._in_force = InForce(settings)
        self._prepared = prepare(settings)
        self._drain_pause = drain_pause
        self._clock = SystemClock()
        self._unready: str | None = "starting"
        self._is_drained = False
        self._store_seen_at = float("-inf")
        self._hurried = asyncio.Event()
        self._services: Services | None = None
        self._programs: Programs | None = None
        ids = Ids()
        self._others = Envelope(super().__call__, lambda: ids(self._clock.now()))

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        endpoint = endpoint_at(scope["path"]) if scope["method"] == "POST" else None
        if endpoint is not None and self._programs is not None:
            await self._programs(scope, receive, send, endpoint)  # type: ignore[arg-type]  # it is a coroutine's
        else:
            await self._others(scope, receive, send)

    # --- life ---

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[dict[str, Outbox]]:
        async with open_services(self._in_force, self._clock) as services:
            self._mount(services)
            self._look(services)
            services.background.begin(every(LOOK_PERIOD, lambda: self._look(services)))
            gc.collect()
            gc.freeze()  # what is there now stays: it is not looked through again
            gc.set_threshold(50_000, 50, 50)
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
            self._unready = None
            yield {"outbox": services.outbox}
            await self.drain()
            await services.periodic.timetable.resign()
            await self._ship(services)

    async def drain(self) -> None:
        """Not ready; then, when load balancers have noticed, nothing new; then what is open ends, or is
        cut off."""
        if self._services is None or self._is_drained:
            return
        gateway, settings = self._services.gateway, self._in_force.settings
        log.info("draining")
        self._unready = "draining"
        pause = settings.drain_pause if self._drain_pause is None else self._drain_pause
        await self._wait(lambda: False, pause)
        gateway.admit.is_open = False
        await self._wait(lambda: not gateway.watch.calls, settings.drain)
        if gateway.watch.calls:
            log.warning("calls are cut off", extra={"fields": {"records": len(gateway.watch.calls)}})
            reason = ShuttingDown("The gateway is shutting down; please try again.", retry_after=1)
            gateway.watch.interrupt_all(reason)
            self._hurried.clear()
            await self._wait(lambda: not gateway.watch.calls, CUT_SECONDS)
        self._services.happenings.end()
        self._is_drained = True

    async def _ship(self, services: Services) -> None:
        """The last records. What the store does not take in time stays in the journal for the next start."""
        self._hurried.clear()
        shipping = services.background.create_task(services.shipper.drain(SHIP_SECONDS))
        await self._wait(shipping.done, SHIP_SECONDS)

    def hurry(self) -> None:
        """Ends what the drain waits for."""
        self._hurried.set()

    async def _wait(self, is_over: Callable[[], bool], seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while not is_over() and not self._hurried.is_set() and self._clock.monotonic() < until:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), WAIT_STEP)

    # --- surfaces ---

    def _mount(self, services: Services) -> None:
        settings, gateway = self._in_force.settings, services.gateway
        assert settings.admin_key is not None, "an embedded gateway makes one, in production it is required"
        self._services = services
        self._programs = Programs(
            gateway, self._clock, max_body=settings.max_body, refused=services.refusals.note,
            tracing=services.tracing,
        )  # fmt: skip
        machines = Machines(
            condition=lambda: self._condition(services),
            metrics=lambda accept: exposition_of(services, accept),
            metrics_for=settings.metrics,
            admin_key=settings.admin_key,
        )
        models = Models(
            gateway.authenticate,
            gateway.route,
            services.count,
            currency=settings.currency,
            max_body=settings.max_body,
        )
        desk = Desk(
            control=services.control,
            erasure=services.erasure,
            clock=self._clock,
            replicas=services.upstream.replicas.seen,
            config=lambda: self._in_force.settings.masked(),
            standings=lambda scopes: standings_now(services, scopes),
            happenings=services.happenings,
        )
        portal = portal_of(self._in_force, services, self._clock, self._prepared)
        source = Addresses(settings.trusted_proxies).of
        document = openapi(admin.ROUTES, version=__version__, public_url=settings.public_url)
        self.router.routes[:] = [
            *machines.routes(),
            *models.routes(),
            *documents.routes(document),
            *admin.routes(desk, Gate(settings.admin_key, portal.sessions.administrator, source=source)),
            *portal.routes,
        ]

    def _condition(self, services: Services) -> Condition:
        self._note_store(services)
        is_blind = self._clock.monotonic() - self._store_seen_at > STALE_SECONDS
        parts = (services.store, services.state)
        return Condition(
            version=__version__,
            config_version=self._in_force.version,
            unready=self._unready or ("nobody can be authenticated" if is_blind else None),
            degraded=(*(part.name for part in parts if not part.is_healthy()), *troubles(services)),
        )

    def _look(self, services: Services) -> None:
        """Notes when the store was last seen, and tells the other processes' scrapers how this one is."""
        self._note_store(services)
        if services.board is not None:
            services.board.publish(samples_of(services))

    def _note_store(self, services: Services) -> None:
        if services.catalogue.has_worked and services.store.is_healthy():
            self._store_seen_at = self._clock.monotonic()


def exposition_of(services: Services, accept: str) -> Exposition:
    """The metrics of all processes of this machine."""
    board = services.board
    others = () if board is None else board.others()
    return Exposition(*exposed([samples_of(services), *others], accept, alone=board is None))


def load_app() -> Llmgateway:
    """The application of this process's environment; whoever starts it is told what is wrong with that."""
    try:
        settings = with_secrets(Settings.load(of_this_process()))
        configure(settings.log_level, settings.log_format)
        return create_app(settings)
    except BadSettings as bad:
        for complaint in bad.complaints:
            sys.stderr.write(f"llmgateway: {complaint}\n")
        raise SystemExit(2) from None


def create_app(settings: Settings, *, drain_pause: float | None = None) -> Llmgateway:
    """`drain_pause` goes before the file's. Nothing is opened before the lifespan begins. Raises
    `BadSettings`."""
    return Llmgateway(settings, drain_pause=drain_pause)
