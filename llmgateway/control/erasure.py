"""Ends accounts for good: what is kept of a person goes, and what they used stays under a pseudonym.

First the user's document says that the account is gone and what it will be called; from then on nobody comes
in by it, and whatever is cut off can be gone on with. Then the keys, which are revoked, take the pseudonym,
and everything that belongs to the person alone is deleted, the document last. Nothing that is left names the
person beside the pseudonym, so it cannot be undone.

Records follow their keys, not the user's id, which may be somebody's again by the time that a journal ships
the last of them: the periodic work gives to the pseudonym what comes late.
"""

import logging
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import msgspec

from llmgateway.control.accounts import FIRST
from llmgateway.control.audit import Actor, Entry
from llmgateway.control.changes import announce, document_of, each, need, revise
from llmgateway.control.comebacks import Comebacks
from llmgateway.control.ground import Ground
from llmgateway.control.moments import now_of
from llmgateway.control.projects import SERVICE
from llmgateway.domain.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from llmgateway.domain.people import GONE, User
from llmgateway.domain.ports import Change, Document, Kind, Shelf, UsageQuery
from llmgateway.domain.upkeep import Upkeep

log = logging.getLogger(__name__)

BECOMES, SINCE = "becomes", "gone_since"  # of a user who is just going: the pseudonym, and when that began
KEYS = "keys"  # of what is left: the ids of all keys that records may come with
SHELVES: Final = ("sessions", "refusals", "saml-named")  # where a user owns something
LATELY = timedelta(days=2)  # in which nearly all records have come; for older ones a look a day is enough
PATIENCE = timedelta(minutes=2)  # before somebody else goes on with what may still be under way
TRIES = 8
ANONYMOUS_KEY: Final[Mapping[str, Any]] = {
    "name": "gone", "hint": "", "state": "revoked", "previous": None, "previous_until": None,
}  # fmt: skip


class Erasure:
    """`ledger` is the truth about use, `shelf` holds sessions."""

    def __init__(self, ground: Ground, ledger: Upkeep, shelf: Shelf) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._comebacks = Comebacks.over(ground)
        self._ledger = ledger
        self._shelf = shelf

    async def forget(self, actor: Actor, user_id: str, *, typed: str | None = None) -> None:
        """`typed` is the id again, by the hand of whoever confirms; None where that was asked elsewhere.
        Raises `Conflict` for the last administrator. When this returns, nobody gets in by the account; what
        a store that is away still keeps goes when it is back."""
        async with self._audit.change(actor, "users.forget", user_id) as entry:
            if typed is not None and typed != user_id:
                raise InvalidRequest("Please type the user name exactly as it stands here.", param="typed")
            going = await self._mark(entry)
        try:
            await self._finish(going)
        except StoreUnavailable as error:
            fields = {"reason": error.message}
            log.warning("an account is ended, and cleared when the store is back", extra={"fields": fields})

    async def look(self, within: timedelta | None = LATELY) -> dict[str, int]:
        """As a job: goes on with what was cut off, and gives late records to the pseudonyms of accounts that
        ended `within` this time; None for all that ever did."""
        done, now = {"finished": 0, "reassigned": 0}, now_of(self._clock)
        await self._comebacks.clear()
        async for user in each(self._store, "users", {"state": "gone"}):
            if not user["id"].startswith(GONE):
                if user[SINCE] < now - PATIENCE:
                    await self._finish(user)
                    done["finished"] += 1
            elif within is None or user["created_at"] > now - within:
                done["reassigned"] += await self._ledger.reassign(user.get(KEYS, []), user["id"])
        return done

    # --- the end begins ---

    async def _mark(self, entry: Entry) -> Document:
        user = await need(self._store, "users", entry.target)
        if entry.target.startswith((SERVICE, GONE)):
            raise Conflict("This is nobody's account.", param="id")
        await self._need_another_admin(user)
        fields = {"state": "gone", SINCE: now_of(self._clock), BECOMES: f"{GONE}{secrets.token_hex(8)}"}

        def change(before: Document) -> Document:
            return {} if before.get("state") == "gone" else fields

        marked, has_changed = await revise(self._store, "users", entry, change, {})
        if not has_changed:
            raise Conflict("This account is being ended already.", param="id")
        try:
            await self._need_another_admin(user)  # unless two went in the same moment
        except Conflict:
            taken_back = {**marked, "state": user["state"], BECOMES: None, "revision": marked["revision"] + 1}
            await self._store.replace("users", taken_back)
            raise
        return marked

    async def _need_another_admin(self, user: Document) -> None:
        if "admin" not in user["roles"]:
            return
        async for other in each(self._store, "users", {"state": "active"}):
            one = msgspec.convert(other, User)
            if one.id != user["id"] and one.is_active and one.is_admin:
                return
        message = "This is the only administrator; make somebody else one first."
        raise Conflict(message, param="id", code="last_admin")

    # --- what follows may be done again from the start ---

    async def _finish(self, user: Document) -> None:
        old, new = user["id"], user[BECOMES]
        await self._comebacks.keep(user, new)
        keys = await self._end_keys(old, new)
        for shelf in SHELVES:
            while found := await self._shelf.owned(shelf, old):  # the last look clears the owner's name, too
                for id in found:
                    await self._shelf.delete(shelf, id)
        await self._store.delete("accounts", old)
        await self._rename_first(old, new)
        await self._rename_acceptances(old, new)
        await self._leave_projects(old)
        keys |= await self._keys_in_ledger(old, new) | await self._end_keys(old, new)
        await self._put_stone(new, keys)
        await self._store.delete("users", old)
        await announce(self._state, [Change("users", old), *(Change("keys", key) for key in keys)])
        await self._ledger.reassign(sorted(keys), new)

    async def _end_keys(self, old: str, new: str) -> set[str]:
        """All that are the pseudonym's now."""
        changes = {**ANONYMOUS_KEY, "user": new}
        async for key in each(self._store, "keys", {"user": old}):
            with suppress(NotFound):  # it was being made, and is taken back
                await self._revise("keys", key, changes)
            await announce(self._state, [Change("keys", key["id"])])
        return {key["id"] async for key in each(self._store, "keys", {"user": new})}

    async def _keys_in_ledger(self, old: str, new: str) -> set[str]:
        """Of keys that are in no other memory, too; but not those of who had the same id before."""
        rows = await self._ledger.usage(UsageQuery(by=("key",), where={"user": old}))
        ids = {str(row.group["key"]) for row in rows}
        return {id for id in ids if await self._is_owned(id, (old, new))}

    async def _is_owned(self, key_id: str, owners: Sequence[str]) -> bool:
        key = await self._store.get("keys", key_id)
        return key is None or key["user"] in owners

    async def _rename_first(self, old: str, new: str) -> None:
        """Whose the first account was stays said, so that nobody becomes an administrator by signing up."""
        first = await self._store.get("accounts", FIRST)
        if first is not None and first["user"] == old:
            await self._revise("accounts", first, {"user": new})

    async def _rename_acceptances(self, old: str, new: str) -> None:
        accepted = await self._store.get("acceptances", old)
        if accepted is not None:
            await self._put("acceptances", {**accepted, "id": new, "revision": 0})
            await self._store.delete("acceptances", old)

    async def _leave_projects(self, old: str) -> None:
        """Nobody answers for a project who is gone."""
        async for project in each(self._store, "projects", {"responsible": old}):
            await self._revise("projects", project, {"responsible": None})

    async def _put_stone(self, new: str, keys: set[str]) -> None:
        stone = User(id=new, created_at=now_of(self._clock), state="gone")
        await self._put("users", {**document_of(stone), KEYS: sorted(keys)})

    async def _put(self, kind: Kind, document: Document) -> None:
        """In the place of what an earlier try has left."""
        try:
            await self._store.insert(kind, document)
        except Conflict:
            await self._revise(kind, await need(self._store, kind, document["id"]), document)

    async def _revise(self, kind: Kind, document: Document, changes: Mapping[str, Any]) -> None:
        for _ in range(TRIES):
            changed = {**document, **changes, "revision": document["revision"] + 1}
            try:
                await self._store.replace(kind, changed)
            except Conflict:
                document = await need(self._store, kind, document["id"])
                continue
            return
        raise StoreUnavailable("What belongs to an account keeps changing.", retry_after=1)
