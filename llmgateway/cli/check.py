"""`llmgateway check`: are the settings right, and does everything that they name answer."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from llmgateway.app.certificates import ends
from llmgateway.app.federated import look_at, prepare, told_end
from llmgateway.cli.opened import Opened, opened
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import counted, say, say_rows
from llmgateway.domain.catalog import Deadlines, Model, Target
from llmgateway.domain.errors import GatewayError, NotAllowed
from llmgateway.domain.policy import Policy
from llmgateway.domain.ports import SystemClock, UpstreamRequest
from llmgateway.domain.sweep import Sweep, Timed
from llmgateway.settings import BadSettings, Settings
from llmgateway.upstream.client import UpstreamClient
from llmgateway.upstream.peers import Peers

SECONDS = 5.0
DEADLINES = Deadlines(pool=1, connect=SECONDS, send=SECONDS, first_byte=SECONDS, idle=SECONDS, total=SECONDS)
COLUMNS = ("part", "where", "is", "ms")
MAX_ANSWER = 1024 * 1024

Row = dict[str, Any]


async def check(arguments: Arguments) -> int:
    try:
        async with opened(arguments) as here:
            rows = await asyncio.gather(*checks_of(here))
    except BadSettings as bad:
        rows = [await _row("settings", "", partial(_bad, complaint)) for complaint in bad.complaints]
    say_rows(rows, COLUMNS, as_json=arguments.as_json)
    trouble = [row for row in rows if not row["fine"]]
    if not arguments.as_json:
        say()
        is_in = "is in" if len(trouble) == 1 else "are in"
        say(f"{len(trouble)} of {counted(len(rows), 'part')} {is_in} trouble." if trouble else "All is well.")
    return 1 if trouble else 0


def checks_of(here: Opened) -> Iterable[Awaitable[Row]]:
    settings = here.settings
    config = str(settings.config) if settings.config else "no file"
    yield _row("settings", config, _nothing)
    yield _row("data directory", str(settings.data_dir), lambda: _writable(settings.data_dir))
    yield _row(here.store.name, "documents and ledger", lambda: _ping(here.store.ping))
    yield _row(here.state.name, "shared state", lambda: _ping(here.state.ping))
    if settings.file.saml is not None:
        yield _row("policy", "who signs in with SAML", partial(_somebody, settings.file.policy))
    upstream = UpstreamClient(Sweep[Timed](), time.monotonic, peers=Peers(settings.file.upstream_networks))
    yield from _of_saml(settings, upstream)
    for target in places(settings.models):
        yield _row("model server", target.url, partial(_reach, upstream, target))


def _of_saml(settings: Settings, upstream: UpstreamClient) -> Iterator[Awaitable[Row]]:
    """Our certificates, and what identity providers say of themselves."""
    saml, clock = settings.file.saml, SystemClock()
    if saml is None:
        return
    now = clock.now()
    for name, end in ends(saml):
        moment = datetime.fromtimestamp(end, UTC)
        yield _row("certificate", name, partial(_until, moment, now))
    try:
        prepared = prepare(settings)
    except BadSettings as bad:
        complaint = "; ".join(bad.complaints)
        yield _row("saml", "our keys and the libraries", partial(_bad, complaint))
        return
    assert prepared is not None, "there is SAML"
    for provider in saml.providers:
        look = partial(look_at, prepared, provider, settings, upstream, clock)
        yield _row("identity provider", f"{provider.id}: {provider.metadata}", look)


async def _until(end: datetime, now: datetime) -> str:
    return next(told_end("the certificate", end, now))


async def _bad(complaint: str) -> str:
    raise NotAllowed(complaint)


def places(models: Iterable[Model]) -> Iterable[Target]:
    """Each address once."""
    return {target.url: target for model in models for target in model.targets if target.url}.values()


async def _row(part: str, where: str, look: Callable[[], Awaitable[str]]) -> Row:
    """`look` says how it is; what it raises is the trouble."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(SECONDS):
            word, fine = await look(), True
    except GatewayError as error:
        word, fine = error.message, False
    except TimeoutError:
        word, fine = f"no answer within {SECONDS:g} s", False
    except OSError as error:
        word, fine = error.strerror or str(error), False
    ms = round((time.monotonic() - began) * 1000)
    return {"part": part, "where": where, "is": word, "ms": ms, "fine": fine}


async def _nothing() -> str:
    return "valid"


async def _somebody(policy: Policy) -> str:
    if not policy.rules:
        raise NotAllowed("no rules: nobody is let in")
    return counted(len(policy.rules), "rule")


async def _writable(directory: Any) -> str:
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, "not writable")
    return "writable"


async def _ping(ping: Callable[[], Awaitable[None]]) -> str:
    await ping()
    return "answers"


async def _reach(upstream: UpstreamClient, target: Target) -> str:
    request = UpstreamRequest("GET", "/models", b"application/json", b"", "check")
    reply = await upstream.send(target, request, DEADLINES)
    status = reply.status
    try:
        await reply.read(MAX_ANSWER)
    finally:
        reply.close()
    if status in (401, 403):
        raise GatewayError(f"does not accept the credential (status {status})")
    if status >= 500:
        raise GatewayError(f"answers with status {status}")
    return "answers" if status == 200 else f"answers, with status {status} to /models"
