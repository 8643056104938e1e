"""The identity providers that are trusted, as their metadata says now: read again and again, kept while it
cannot be read but no longer than it says, and read at once when a provider signs with something new."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NoReturn

from llmgateway.domain.ports import Clock
from llmgateway.domain.saml import IdentityProvider
from llmgateway.portal.saml import Idp, ServiceProvider
from llmgateway.portal.saml_guard import Refused

log = logging.getLogger(__name__)

PERIOD = 3600.0  # seconds between two looks
AGAIN = 30.0  # seconds until one that could not be read is read again, and between two hurried looks

Fetch = Callable[[str], Awaitable[bytes]]
"""A document from a path or an address. Raises `Refused`."""


class Idps:
    """In the order of the configuration; who could not be read yet, or not any more, is not among them."""

    def __init__(
        self, sp: ServiceProvider, providers: Sequence[IdentityProvider], fetch: Fetch, clock: Clock
    ) -> None:
        self._sp = sp
        self._providers = providers
        self._fetch = fetch
        self._clock = clock
        self._known: dict[str, Idp] = {}
        self._digests: dict[str, bytes] = {}
        self._failing: set[str] = set()
        self._looked_at = float("-inf")
        self._turn = asyncio.Lock()

    def all(self) -> list[Idp]:
        return [idp for one in self._providers if (idp := self.named(one.id)) is not None]

    def named(self, id: str) -> Idp | None:
        idp = self._known.get(id)
        is_over = idp is not None and idp.until is not None and idp.until <= self._clock.now()
        return None if is_over else idp

    def issuing(self, entity_id: str) -> Idp | None:
        found = [one for one in self.all() if one.entity_id == entity_id]
        return found[0] if len(found) == 1 else None

    def ends(self) -> Iterator[tuple[str, float]]:
        """When the last certificate of each ends: its name, and seconds since 1970."""
        for idp in self.all():
            if idp.signs_until is not None:
                yield f"provider-{idp.provider.id}", idp.signs_until.timestamp()

    @property
    def missing(self) -> list[str]:
        """Whose metadata could not be read when it was last looked at."""
        return sorted(self._failing)

    async def look(self) -> None:
        """Reads all metadata."""
        async with self._turn:
            await self._look()

    async def changed(self, idp: Idp) -> Idp | None:
        """The same provider, if its metadata says something new since: after a signature that is unknown. Of
        many that come at once the first looks, and the others wait for what it sees."""
        async with self._turn:
            if self._clock.monotonic() - self._looked_at >= AGAIN:
                await self._look()
        now = self.named(idp.provider.id)
        return None if now is idp else now

    async def keep_looking(self) -> NoReturn:
        while True:
            await self.look()
            await asyncio.sleep(AGAIN if self._failing else PERIOD)

    async def _look(self) -> None:
        self._looked_at = self._clock.monotonic()
        for provider in self._providers:
            await self._look_at(provider)

    async def _look_at(self, provider: IdentityProvider) -> None:
        try:
            document = await self._fetch(provider.metadata)
            digest = hashlib.sha256(document).digest()
            is_known = self._digests.get(provider.id) == digest and self.named(provider.id) is not None
            if not is_known or provider.id in self._failing:
                now = self._clock.now()
                idp = await asyncio.to_thread(self._sp.trusted, provider, document, now)
                self._known[provider.id], self._digests[provider.id] = idp, digest
                log.info("an identity provider is known", extra={"fields": {"provider": provider.id}})
        except Refused as refused:
            if provider.id not in self._failing:
                fields = {"provider": provider.id, "reason": str(refused)}
                log.warning("the metadata of an identity provider is not usable", extra={"fields": fields})
            self._failing.add(provider.id)
        else:
            self._failing.discard(provider.id)
