"""Everything that is open while the gateway runs, as one frozen value, and in which order it comes and
goes."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from secrets import token_hex

from msgspec import Struct

from llmgateway import __version__
from llmgateway.app.admission import open_admission
from llmgateway.app.certificates import LOOK_PERIOD as CERTIFICATES_PERIOD, Certificates
from llmgateway.app.in_force import InForce, book_of
from llmgateway.app.memory import Memory, alone, open_memory
from llmgateway.app.periodic import OLD_SECONDS, Parts, Periodic, failing, periodic_work, values_of
from llmgateway.app.tracing import Tracing, tracing_to
from llmgateway.control.erasure import Erasure
from llmgateway.control.ground import Ground
from llmgateway.control.limits import load_book
from llmgateway.control.models import load_catalog
from llmgateway.control.services import Control
from llmgateway.control.used import used_by_all
from llmgateway.domain.call import Record
from llmgateway.domain.catalog import Catalog
from llmgateway.domain.limits import Scope, Standing
from llmgateway.domain.periods import Calendar
from llmgateway.domain.ports import Change, Clock, Shelf, State, Store
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.edge.errors import status_of
from llmgateway.flow.account import Account
from llmgateway.flow.admit import Admit
from llmgateway.flow.authenticate import Authenticate
from llmgateway.flow.count import Count
from llmgateway.flow.gateway import Gateway
from llmgateway.flow.prompts import Prompts
from llmgateway.flow.relay import Relay
from llmgateway.flow.route import Route
from llmgateway.flow.vigil import Watch
from llmgateway.jobs.background import Background
from llmgateway.jobs.compare import Comparison
from llmgateway.jobs.happenings import Happenings
from llmgateway.jobs.live import LiveCalls
from llmgateway.jobs.probe import Capabilities, keep_probing
from llmgateway.jobs.propagation import Propagation
from llmgateway.jobs.refusals import Refusals
from llmgateway.jobs.ship import Heir, Recovery, Shipper
from llmgateway.jobs.ticks import CONFIG_PERIOD, Reload, every, heed_changes, turn_sweep
from llmgateway.jobs.watermark import PERIOD as WATERMARK_PERIOD, Watermark
from llmgateway.observability.exposition import Board
from llmgateway.observability.logs import CallLog, console_line, json_line
from llmgateway.observability.metrics import CallMetrics, Sample
from llmgateway.providers.echo import Echo
from llmgateway.providers.openai import OpenAI
from llmgateway.settings import Settings
from llmgateway.stores.journal import Batch, FileJournal
from llmgateway.stores.redis import RedisState
from llmgateway.upstream.client import UpstreamClient
from llmgateway.upstream.local import LocalReply, WithLocal
from llmgateway.upstream.peers import Peers
from llmgateway.wire.outbox import Outbox

MOST_IN_FLIGHT = 10_000  # calls of one worker
START_SECONDS = 1.0  # what the start waits for a store that may be away
FLUSH_PERIOD = 0.25  # seconds between two writes of calls' log lines
JOURNAL, METRICS = "journal", "metrics"  # in the data directory

Sink = Callable[[Record], None]


class Services(Struct, frozen=True, kw_only=True):
    """All parts."""

    clock: Clock
    in_force: InForce
    outbox: Outbox
    store: Store
    state: State
    redis: RedisState | None
    shelf: Shelf
    journal: FileJournal
    shipper: Shipper[Batch]
    recovery: Recovery
    propagation: Propagation
    catalogue: Reload
    capabilities: Capabilities
    gateway: Gateway
    upstream: UpstreamClient
    count: Count
    control: Control
    erasure: Erasure
    metrics: CallMetrics
    tracing: Tracing | None
    board: Board | None
    background: Background
    periodic: Periodic
    live: LiveCalls
    happenings: Happenings
    refusals: Refusals
    certificates: Certificates


class Footing(Struct, frozen=True):
    """What admission stands on."""

    in_force: InForce
    clock: Clock
    memory: Memory
    worker: str
    route: Route
    count: Count
    control: Control


@asynccontextmanager
async def open_services(in_force: InForce, clock: Clock) -> AsyncIterator[Services]:
    """Everything is closed in reverse order. Recovery comes before the first call."""
    settings = in_force.settings
    async with AsyncExitStack() as stack:
        stack.enter_context(alone(settings))
        memory = await stack.enter_async_context(open_memory(settings))
        store, state = memory.store, memory.state
        worker = f"{os.getpid()}-{token_hex(4)}"
        journal = stack.enter_context(FileJournal(settings.data_dir / JOURNAL, worker=worker))
        background = await stack.enter_async_context(Background())
        connections = Sweep[Timed]()
        outbox = Outbox(asyncio.get_running_loop().call_soon)
        upstream = upstream_of(settings, connections, clock, outbox)
        stack.callback(upstream.close)
        capabilities = Capabilities(upstream, clock.monotonic)
        count = Count(everywhere := with_echo(upstream, clock), clock.monotonic)
        route = Route(Catalog(in_force.configuration().base_models), upstream.order)
        metrics = CallMetrics(lambda name: _id_of(route.catalog, name))
        tracing = open_tracing(settings, stack)
        sinks = tuple(filter(None, (metrics, tracing, *call_logs(settings, stack, background))))
        control = control_over(in_force, store, state, clock)
        footing = Footing(in_force, clock, memory, worker, route, count, control)
        gateway = Gateway(
            Authenticate(store, state, pepper=pepper_of(settings), clock=clock),
            route,
            await admission_on(footing, stack),
            Account(journal, count, clock, status_of=status_of, sinks=sinks),
            Relay(everywhere, {"openai": OpenAI(), "echo": OpenAI()}, clock),
            Watch(background, keepalive=settings.keepalive),
        )
        recovery = Recovery(journal, journal, clock, lines=memory.ledger.lines, sinks=sinks,
                            heirs=heirs_of(gateway.admit))  # fmt: skip
        erasure = erasure_over(in_force, memory, clock, control)
        parts = Parts(memory, control, background, clock, settings.data_dir / JOURNAL, recovery.look, erasure,
                      comparison_on(footing, gateway.admit, journal))  # fmt: skip
        services = Services(
            clock=clock, in_force=in_force, outbox=outbox, store=store, state=state, redis=memory.redis,
            shelf=memory.shelf, journal=journal, shipper=Shipper(journal, store.append), recovery=recovery,
            propagation=Propagation(state, clock, name=worker), metrics=metrics, tracing=tracing,
            catalogue=catalogue_of(in_force, store, gateway, capabilities), capabilities=capabilities,
            gateway=gateway, upstream=upstream, count=count, control=control, erasure=erasure,
            board=Board(settings.data_dir / METRICS) if settings.is_production else None,
            background=background, periodic=periodic_work(parts, lambda: in_force.settings, name=worker),
            live=(live := live_calls(gateway, memory, worker)), refusals=Refusals(memory.shelf, name=worker),
            happenings=Happenings(live.all, memory.ledger, store, clock),
            certificates=Certificates(lambda: in_force.settings.file.saml, clock),
        )  # fmt: skip
        background.begin(turn_sweep(connections, clock), turn_sweep(gateway.watch.calls, clock))
        await begin_work(services)
        yield services


def upstream_of(
    settings: Settings, connections: Sweep[Timed], clock: Clock, outbox: Outbox
) -> UpstreamClient:
    peers = Peers(settings.file.upstream_networks)
    return UpstreamClient(connections, clock.monotonic, peers=peers, outbox=outbox)


async def admission_on(footing: Footing, stack: AsyncExitStack) -> Admit:
    settings, clock, count = footing.in_force.settings, footing.clock, footing.count
    limiter, places = await stack.enter_async_context(open_admission(
        footing.memory, clock, worker=footing.worker, currency=settings.currency,
        names_of=lambda model: names_in(footing.route.catalog, model),
        known_as=footing.control.comebacks.known_as,
    ))  # fmt: skip
    prompts = Prompts(count, clock.monotonic)
    return Admit(
        MOST_IN_FLIGHT, limiter, places, prompts,
        book=book_of(settings), calendar=Calendar(settings.time_zone),
    )  # fmt: skip


def comparison_on(footing: Footing, admit: Admit, journal: FileJournal) -> Comparison:
    clock, route = footing.clock, footing.route
    admit.limiter.behind = lambda: oldest_seconds(journal, clock)
    known_as = footing.control.comebacks.known_as
    used = used_by_all(footing.memory.store, lambda model: names_in(route.catalog, model), known_as)
    return Comparison(admit.limiter.sums, used, lambda: admit.calendar, clock)


def heirs_of(admit: Admit) -> Sequence[Heir]:
    """Who holds something in a worker's name."""
    return [admit.limiter.recover, lambda worker, _: admit.places.recover(worker)]


def names_in(catalog: Catalog, model_id: str) -> tuple[str, ...]:
    model = catalog.find(model_id)
    return (model_id,) if model is None else (model.id, *model.aliases)


def pepper_of(settings: Settings) -> bytes:
    assert settings.key_pepper is not None, "an embedded gateway makes one, in production it is required"
    return settings.key_pepper.reveal().encode()


def control_over(in_force: InForce, store: Store, state: State, clock: Clock) -> Control:
    pepper = pepper_of(in_force.settings)
    return Control.over(store, state, clock, pepper=pepper, configured=in_force.configuration)


def erasure_over(in_force: InForce, memory: Memory, clock: Clock, control: Control) -> Erasure:
    ground = Ground(
        store=memory.store, state=memory.state, clock=clock, audit=control.audit,
        configured=in_force.configuration, pepper=pepper_of(in_force.settings),
    )  # fmt: skip
    return Erasure(ground, memory.ledger, memory.shelf)


def live_calls(gateway: Gateway, memory: Memory, worker: str) -> LiveCalls:
    calls = gateway.watch.calls
    shelf = memory.shelf if memory.redis is not None else None
    return LiveCalls(lambda: [vigil.told() for vigil in calls], shelf, name=worker)


def with_echo(upstream: UpstreamClient, clock: Clock) -> WithLocal:
    echo = Echo(clock.now)
    return WithLocal(upstream, {"echo": lambda request: LocalReply(*echo.answer(request))})


def open_tracing(settings: Settings, stack: AsyncExitStack) -> Tracing | None:
    """Closing sends what is left, in a thread: a collector that is away stops nobody."""
    tracing = tracing_to(settings.otel_endpoint)
    if tracing is not None:
        stack.push_async_callback(asyncio.to_thread, tracing.close)
    return tracing


def call_logs(settings: Settings, stack: AsyncExitStack, background: Background) -> Iterator[Sink]:
    """One line for every call, where the log's level lets it through."""
    if settings.log_level not in ("debug", "info"):
        return
    log_format = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    calls = CallLog(sys.stderr.buffer, console_line if log_format == "console" else json_line)
    stack.callback(calls.flush)
    background.begin(every(FLUSH_PERIOD, calls.flush))
    yield calls


def catalogue_of(in_force: InForce, store: Store, gateway: Gateway, capabilities: Capabilities) -> Reload:
    """What calls are routed and limited by: the settings, what operators put over them, and what the servers
    can do."""

    async def read() -> None:
        configuration = in_force.configuration()
        catalog = await load_catalog(store, configuration.base_models, configuration.defaults)
        book = await load_book(store, configuration.limits)
        gateway.route.catalog = Catalog(capabilities.applied(catalog))
        gateway.admit.book = book
        gateway.admit.places.resize({one.id: one.max_in_flight or MOST_IN_FLIGHT for one in catalog})
        gateway.admit.calendar = Calendar(configuration.time_zone)

    return Reload(read, "the catalogue of models")


async def begin_work(services: Services) -> None:
    """What dead workers left comes first, then the catalogue; neither waits long for a store that is away."""
    gateway, in_force, reload = services.gateway, services.in_force, services.catalogue

    def take_over_configuration() -> None:
        if in_force.take_over_changes():
            gateway.watch.keepalive = in_force.settings.keepalive
            reload.soon()

    def heed(change: Change) -> None:
        gateway.authenticate.forget(change)
        if change.topic in ("models", "limits", "*"):
            reload.soon()

    watermark = Watermark()

    def look_at_memory() -> None:
        watermark.look()
        gateway.admit.is_short = watermark.is_high

    await services.recovery.look()
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            if await reload.once():
                await services.shipper.ship()
    services.background.keep(
        services.shipper.run,
        services.recovery.run,
        reload.run,
        services.propagation.run,
        services.periodic.run,
        services.periodic.keep_warm,
        services.live.run,
        services.happenings.run,
        services.refusals.run,
    )
    services.background.begin(
        heed_changes(services.state, [heed, services.propagation.heed]),
        every(CONFIG_PERIOD, take_over_configuration),
        every(WATERMARK_PERIOD, look_at_memory),
        every(CERTIFICATES_PERIOD, services.certificates.warn),
        keep_probing(services.capabilities, lambda: gateway.route.catalog, reload.soon),
    )


async def standings_now(services: Services, scopes: Sequence[Scope]) -> Sequence[Standing]:
    admit = services.gateway.admit
    period = admit.calendar.period_of(services.clock.now())
    return await admit.limiter.standings(scopes, period) if scopes else ()


def samples_of(services: Services) -> Sequence[Sample]:
    """All metrics of this process now."""
    journal, gateway = services.journal, services.gateway
    replicas = services.upstream.replicas.seen()
    values: list[tuple[str, tuple[str, ...], float]] = [
        ("journal_failures", (), journal.failures),
        ("recovered_records", (), services.recovery.recovered),
        ("usage_spool_records", (), journal.unshipped),
        ("usage_spool_bytes", (), journal.bytes_held),
        ("usage_spool_oldest_seconds", (), oldest_seconds(journal, services.clock)),
        ("dead_letters", (), services.shipper.dead_letters),
        *values_of(services.periodic),
        ("store_up", (services.store.name,), services.store.is_healthy()),
        ("store_up", (services.state.name,), services.state.is_healthy()),
        ("config_version", (), services.in_force.version),
        ("key_propagation_seconds", (), services.propagation.seconds or 0.0),
        ("strange_records", (), strangers_in(services)),
        ("build_info", (__version__,), 1),
    ]
    values += _of_admission(gateway.admit)
    values += [
        ("certificate_expiry_timestamp_seconds", (name,), end) for name, end in services.certificates.ends()
    ]
    values += [
        ("upstream_up", (model.id, target.replica), replicas[target.url].is_up)
        for model in gateway.route.catalog
        for target in model.targets
        if target.url in replicas
    ]
    return [*services.metrics.samples(), *(Sample(name, labels, [float(n)]) for name, labels, n in values)]


def _of_admission(admit: Admit) -> Iterator[tuple[str, tuple[str, ...], float]]:
    yield "inflight_requests", (), admit.in_flight
    yield from (("ratelimit_refusals", (limit,), count) for limit, count in admit.refusals.items())
    yield from (("waiting_requests", (model,), count) for model, count in admit.waiting.items())


def strangers_in(services: Services) -> int:
    """How often what the fleet shares was not what was asked for."""
    redis = services.redis
    return services.gateway.authenticate.strangers + (redis.strangers if redis is not None else 0)


def troubles(services: Services) -> list[str]:
    """What else is not as it should be, while calls still pass."""
    admit = services.gateway.admit
    states = {
        "journal": oldest_seconds(services.journal, services.clock) <= OLD_SECONDS,
        "limits": admit.limiter.is_healthy(),
        "queue": admit.places.is_healthy(),
    }
    return [*(name for name, is_well in states.items() if not is_well), *failing(services.periodic)]


def oldest_seconds(journal: FileJournal, clock: Clock) -> float:
    """How long the oldest record that is not in the store has waited."""
    oldest = journal.oldest
    return max(0.0, (clock.now() - oldest).total_seconds()) if oldest else 0.0


def _id_of(catalog: Catalog, name: str) -> str | None:
    model = catalog.find(name)
    return model.id if model else None
