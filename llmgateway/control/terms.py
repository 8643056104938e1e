"""Who accepted which version of the terms of use, and when; every version anew."""

from datetime import datetime

import msgspec
from msgspec import Struct

from llmgateway.control.audit import Actor
from llmgateway.control.ground import Ground
from llmgateway.control.moments import now_of
from llmgateway.domain.errors import Conflict, InvalidRequest
from llmgateway.domain.ports import Document
from llmgateway.domain.terms import Terms

TRIES = 8


class Acceptance(Struct, frozen=True):
    version: str
    at: datetime


class Agreements:
    """The terms are the configuration's, which may change while people are signed in."""

    def __init__(self, ground: Ground) -> None:
        self._store = ground.store
        self._audit = ground.audit
        self._clock = ground.clock
        self._configured = ground.configured

    @property
    def terms(self) -> Terms | None:
        """Those in force; None where there are none to accept."""
        return self._configured().terms

    async def of(self, user_id: str) -> list[Acceptance]:
        """All that somebody accepted, the newest last."""
        return _accepted(await self._store.get("acceptances", user_id))

    async def is_owed(self, user_id: str) -> bool:
        """Whether there are terms that somebody has not accepted yet."""
        terms = self.terms
        return terms is not None and all(one.version != terms.version for one in await self.of(user_id))

    async def accept(self, actor: Actor, user_id: str, version: str) -> None:
        """Raises `Conflict` where another version is in force than the one that was read."""
        terms = self.terms
        async with self._audit.change(actor, "terms.accept", user_id) as entry:
            if terms is None:
                raise InvalidRequest("There are no terms to accept.")
            if version != terms.version:
                raise Conflict("The terms have changed meanwhile; please read them again.")
            if await self.is_owed(user_id):
                await entry.accept({"version": version})
                await self._add(user_id, Acceptance(version, now_of(self._clock)))

    async def _add(self, user_id: str, acceptance: Acceptance) -> None:
        for _ in range(TRIES):
            before = await self._store.get("acceptances", user_id)
            accepted = [*_accepted(before), acceptance]
            revision = -1 if before is None else before["revision"]
            stored = [{"version": one.version, "at": one.at} for one in accepted]
            document: Document = {"id": user_id, "revision": revision + 1, "accepted": stored}
            try:
                if before is None:
                    await self._store.insert("acceptances", document)
                else:
                    await self._store.replace("acceptances", document)
            except Conflict:
                continue
            return
        raise Conflict("The terms are being accepted elsewhere; please try again.")


def _accepted(document: Document | None) -> list[Acceptance]:
    return [] if document is None else msgspec.convert(document["accepted"], list[Acceptance])
