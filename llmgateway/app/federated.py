"""Sign-in over SAML put together, where it is configured.

The XML libraries take 16 MiB and gateways without SAML need none of them, so this is the one place that
imports modules by name, when they are needed.
"""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmgateway.app.certificates import SOON
from llmgateway.app.services import Services
from llmgateway.domain.catalog import Deadlines, Target
from llmgateway.domain.errors import NotAllowed, UpstreamError
from llmgateway.domain.ports import Clock, Upstream, UpstreamRequest
from llmgateway.domain.saml import IdentityProvider, Saml
from llmgateway.portal.door import way_cookie
from llmgateway.portal.sessions import Sessions
from llmgateway.settings import BadSettings, Settings

if TYPE_CHECKING:
    from llmgateway.portal.federation import SamlFederation, Welcome
    from llmgateway.portal.saml import ServiceProvider

SECONDS = 30.0
DEADLINES = Deadlines(pool=5, connect=5, send=5, first_byte=SECONDS, idle=5, total=SECONDS)
MOST_METADATA = 32 * 1024 * 1024

Fetch = Callable[[str], Awaitable[bytes]]


class Prepared(Struct, frozen=True):
    """What needs no store and no network."""

    saml: Saml
    sp: "ServiceProvider"


def prepare(settings: Settings) -> Prepared | None:
    """None without SAML. Raises `BadSettings` where our keys cannot be used, or where the libraries believe
    what they must not."""
    saml = settings.file.saml
    if saml is None:
        return None
    try:
        library: Any = importlib.import_module("llmgateway.portal.saml")
    except ImportError as error:
        raise BadSettings([f"saml: lxml and xmlsec do not work together: {error}"]) from None
    try:
        sp = library.ServiceProvider(saml, settings.public_url)
        importlib.import_module("llmgateway.portal.saml_self_test").check(sp, saml)
    except library.Refused as refused:
        raise BadSettings([f"saml: {refused}"]) from None
    return Prepared(saml, sp)


def federation_over(
    prepared: Prepared, settings: Settings, services: Services, clock: Clock, *,
    sessions: Sessions, welcome: "Welcome",
) -> "SamlFederation":  # fmt: skip
    """It begins to read the providers' metadata."""
    module: Any = importlib.import_module("llmgateway.portal.federation")
    known: Any = importlib.import_module("llmgateway.portal.saml_idps")
    fetch = fetching(settings, services.upstream, known.Refused)
    idps = known.Idps(prepared.sp, prepared.saml.providers, fetch, clock)
    services.background.keep(idps.keep_looking)
    services.certificates.also(idps.ends)
    means = module.Means(
        shelf=services.shelf, sessions=sessions, welcome=welcome, audit=services.control.audit, clock=clock,
        cookie=way_cookie(is_secure=settings.public_url.startswith("https:")),
    )  # fmt: skip
    federation: SamlFederation = module.SamlFederation(prepared.saml, prepared.sp, idps, means)
    return federation


def fetching(settings: Settings, upstream: Upstream, refused: type[Exception]) -> Fetch:
    """Reads metadata from files beside the configuration and from addresses."""
    folder = settings.config.parent if settings.config else Path()

    async def fetch(place: str) -> bytes:
        if "://" in place:
            return await _fetched(upstream, place, refused)
        try:
            return await asyncio.to_thread(_read, folder, place)
        except OSError as error:
            raise refused(f"cannot read {place}: {error.strerror or error}") from None

    return fetch


async def look_at(
    prepared: Prepared, provider: IdentityProvider, settings: Settings, upstream: Upstream, clock: Clock
) -> str:
    """What the metadata of a provider says, in words. Raises `NotAllowed` where nobody could sign in."""
    refused: Any = importlib.import_module("llmgateway.portal.saml_guard").Refused
    now = clock.now()
    try:
        document = await fetching(settings, upstream, refused)(provider.metadata)
        idp = await asyncio.to_thread(prepared.sp.trusted, provider, document, now)
    except refused as why:
        raise NotAllowed(str(why)) from None
    said = [f"{idp.entity_id}", *told_end("its certificate", idp.signs_until, now)]
    if idp.until is not None:
        said.append(f"its metadata counts until {idp.until:%Y-%m-%d %H:%M} UTC")
    return "; ".join(said)


def told_end(what: str, end: datetime | None, now: datetime) -> Iterator[str]:
    """Raises `NotAllowed` for what has ended."""
    if end is None:
        yield f"the end of {what} cannot be read"
    elif end <= now:
        raise NotAllowed(f"{what} ended on {end:%Y-%m-%d}")
    elif end - now < SOON:
        yield f"{what} ends soon, on {end:%Y-%m-%d}"
    else:
        yield f"{what} ends on {end:%Y-%m-%d}"


def _read(folder: Path, place: str) -> bytes:
    with (folder / Path(place).expanduser()).open("rb") as file:
        return file.read(MOST_METADATA)


async def _fetched(upstream: Upstream, url: str, refused: type[Exception]) -> bytes:
    request = UpstreamRequest("GET", url, b"application/xml", b"", "")
    try:
        reply = await upstream.send(Target(url=url, model=""), request, DEADLINES)
        try:
            if reply.status != 200:
                raise refused(f"{url} answers {reply.status}")
            return await reply.read(MOST_METADATA)
        finally:
            reply.close()
    except UpstreamError as error:
        raise refused(f"{url}: {error.message}") from None
