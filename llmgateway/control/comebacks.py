"""What is kept of an ended account until the month ends, so that nobody's budget begins anew by coming back:
which pseudonyms have its records, and what operators had set against it by hand.

It stands under an HMAC of the user's id: whoever has no pepper cannot tell whose it is. It says nothing about
the person that their records under the pseudonym do not, and goes with the month.
"""

import hmac
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Self

from llmgateway.control.changes import each
from llmgateway.control.granted import UNGRANTED
from llmgateway.control.ground import Configured, Ground
from llmgateway.control.moments import now_of
from llmgateway.domain.errors import Conflict, StoreUnavailable
from llmgateway.domain.periods import Calendar
from llmgateway.domain.ports import Clock, Document, Documents

PURPOSE = b"ended account\n"  # no key of this gateway begins so
HELD: Final = ("limits", "models")  # the fields by which operators hold somebody back
TRIES = 8


class Comebacks:
    """Without a `pepper` nothing is kept."""

    def __init__(self, store: Documents, clock: Clock, pepper: bytes | None, configured: Configured) -> None:
        self._store = store
        self._clock = clock
        self._pepper = pepper
        self._configured = configured

    @classmethod
    def over(cls, ground: Ground) -> Self:
        return cls(ground.store, ground.clock, ground.pepper, ground.configured)

    async def keep(self, user: Document, pseudonym: str) -> None:
        """Of a user who is just going. May be done again."""
        if self._pepper is None:
            return
        now, name = now_of(self._clock), self._name_of(user["id"])
        until = Calendar(self._configured().time_zone).period_of(now).month_end
        for _ in range(TRIES):
            before = await self._store.get("comebacks", name)
            names = {pseudonym, *(before["names"] if before is not None and before["until"] > now else ())}
            kept: Document = {"id": name, "revision": 0, "until": until, "names": sorted(names),
                              "held": _held(user)}  # fmt: skip
            try:
                if before is None:
                    await self._store.insert("comebacks", kept)
                else:
                    await self._store.replace("comebacks", {**kept, "revision": before["revision"] + 1})
            except Conflict:
                continue
            return
        raise StoreUnavailable("What is kept of an ended account keeps changing.", retry_after=1)

    async def held(self, user_id: str) -> Document:
        """What still holds for who comes by this id, as fields of a user."""
        kept = await self._kept(user_id)
        return {} if kept is None else dict(kept["held"])

    async def known_as(self, user_ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Under which pseudonyms else the ledger has what counts for these."""
        if len(user_ids) == 1:
            (one,) = user_ids
            kept = await self._kept(one)
            return {} if kept is None else {one: kept["names"]}
        now = now_of(self._clock)
        found = {kept["id"]: kept["names"] async for kept in each(self._store, "comebacks", {})
                 if kept["until"] > now}  # fmt: skip
        if not found:
            return {}
        named = ((id, found.get(self._name_of(id))) for id in user_ids)
        return {id: names for id, names in named if names is not None}

    async def clear(self) -> None:
        """What is over."""
        now = now_of(self._clock)
        async for kept in each(self._store, "comebacks", {}):
            if kept["until"] <= now:
                await self._store.delete("comebacks", kept["id"])

    async def _kept(self, user_id: str) -> Document | None:
        if self._pepper is None:
            return None
        kept = await self._store.get("comebacks", self._name_of(user_id))
        return kept if kept is not None and kept["until"] > now_of(self._clock) else None

    def _name_of(self, user_id: str) -> str:
        assert self._pepper is not None
        return hmac.digest(self._pepper, PURPOSE + user_id.encode(), "sha256").hex()


def _held(user: Document) -> dict[str, Any]:
    """Whom no policy concerns has all of it by hand."""
    names = HELD if user.get("provider") is None else user.get("by_hand", ())
    return {name: user[name] for name in HELD if name in names and user.get(name) != UNGRANTED[name]}
