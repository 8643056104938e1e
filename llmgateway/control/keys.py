"""API keys: made, shown once, changed, suspended, revoked, rotated. Only digests are kept."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.control.audit import Actor, Entry
from llmgateway.control.changes import Fields, announce, document_of, given, need, no_such, revise
from llmgateway.control.checks import limits_in, name_in, optional_name, user_id_in
from llmgateway.control.ground import Ground
from llmgateway.control.models import Models
from llmgateway.control.moments import in_future, now_of
from llmgateway.control.people import People
from llmgateway.control.plain import view_of
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, StoreUnavailable, shown
from llmgateway.domain.keys import PREFIX, Key, Purpose, State as KeyState, digest_of, mint, mint_for
from llmgateway.domain.later import Reader
from llmgateway.domain.limits import Limits
from llmgateway.domain.people import User
from llmgateway.domain.ports import Change, Document, RecordQuery
from llmgateway.domain.secret import Secret

log = logging.getLogger(__name__)

STATES = frozenset(get_args(KeyState))

OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=30)
LOOK_BACK = (timedelta(hours=1), timedelta(days=1), timedelta(days=30))


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What whoever makes a key may say of it. `models` is None where every model is allowed."""

    user: str
    name: str
    models: list[str] | None = None
    expires_at: datetime | None = None
    limits: Limits | None = None
    project: str | None = None


class KeyChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be changed; null takes a restriction away."""

    name: str | UnsetType = UNSET
    models: list[str] | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    limits: Limits | UnsetType | None = UNSET
    state: KeyState | UnsetType = UNSET


class KeyView(Struct, frozen=True, kw_only=True):
    """A key as people may see it. Until `previous_until` the key before the last rotation is valid too."""

    id: str
    prefix: str
    hint: str
    user: str
    name: str
    project: str | None
    models: tuple[str, ...] | None
    limits: Limits
    created_at: datetime
    expires_at: datetime | None
    state: str
    purpose: Purpose
    previous_until: datetime | None


class UsedKeyView(KeyView, frozen=True, kw_only=True):
    """One key; in lists the ledger is not asked when each was last used."""

    last_used_at: datetime | None


class Issued(Struct, frozen=True):
    """A key with its clear text: the only moment at which there is one."""

    key: Key
    token: Secret


def key_view(key: Key) -> dict[str, Any]:
    """As JSON."""
    return view_of(KeyView(**_shown(key)))


def used_key_view(key: Key, last_used_at: datetime | None) -> dict[str, Any]:
    return view_of(UsedKeyView(**_shown(key), last_used_at=last_used_at))


def _shown(key: Key) -> dict[str, Any]:
    names = KeyView.__struct_fields__
    return {"prefix": f"{PREFIX}_{key.id}"} | {n: getattr(key, n) for n in names if n != "prefix"}


class Keys:
    """`people` are whom keys belong to, `models` what they may be restricted to."""

    def __init__(self, ground: Ground, people: People, models: Models, *, pepper: bytes) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._people = people
        self._models = models
        self._pepper = pepper
        self._reader = Reader(log)

    async def create(self, actor: Actor, new: NewKey, *, purpose: Purpose = "programs") -> Issued:
        """A user who is not known yet is made. A key is of its user's project unless it names another."""
        key_id, token = mint()
        async with self._audit.change(actor, "keys.create", key_id) as entry:
            key = await self._checked(key_id, token, new)
            owner = await self._people.ensure(actor, key.user)
            if not owner.is_active:
                raise Conflict(f"The user '{owner.id}' is suspended.", param="user")
            project = key.project or owner.project
            expires_at = await self._within(project, key.expires_at)
            key = msgspec.structs.replace(key, project=project, purpose=purpose, expires_at=expires_at)
            fields = ("user", "name", "project", "models", "limits", "expires_at")
            await entry.accept({name: getattr(key, name) for name in fields})
            await self._store.insert("keys", document_of(key))
            try:
                await self._look_again(key, owner)
            except GatewayError:
                await self._store.delete("keys", key_id)  # nobody has been told its secret
                raise
        return Issued(key, Secret(token))

    async def get(self, key_id: str, *, owner: str | None = None) -> Key:
        """With an `owner`, a key of somebody else is not there."""
        key = self._key(await need(self._store, "keys", key_id))
        if owner is not None and key.user != owner:
            raise no_such("keys", key_id)
        return key

    async def page(
        self, where: dict[str, str | None], *, limit: int, after: str | None = None
    ) -> tuple[Sequence[Key], str | None]:
        """By id. `where` may hold `user`, `state`, `project` and `name`."""
        page = await self._store.find("keys", where, limit=limit, after=after)
        return [self._key(document) for document in page.data], page.next

    async def change(self, actor: Actor, key_id: str, changes: KeyChanges) -> Key:
        action = "keys.revoke" if changes.state == "revoked" else "keys.change"
        async with self._audit.change(actor, action, key_id) as entry:
            fields = await self._checked_changes(changes)
            if "expires_at" in fields:
                project = (await self.get(key_id)).project
                fields["expires_at"] = await self._within(project, fields["expires_at"])

            def change(document: Document) -> Document:
                is_news = any(document.get(name) != value for name, value in fields.items())
                if document["state"] == "revoked" and is_news:
                    raise Conflict("This key is revoked, and that is final; create a new one.")
                if document["state"] not in STATES and fields.get("state", "revoked") != "revoked":
                    raise Conflict("A later version of the gateway set the state of this key; revoke it, or "
                                   "use that version.")  # fmt: skip
                return fields

            key = await self._revise(entry, change, fields)
            return await self._cut(entry, key) if "expires_at" in fields else key

    async def revoke(self, actor: Actor, key_id: str) -> Key:
        """For good. What is revoked already stays so."""
        return await self.change(actor, key_id, KeyChanges(state="revoked"))

    async def rotate(self, actor: Actor, key_id: str, overlap: timedelta = OVERLAP) -> Issued:
        """A new secret for the same id. The last one is valid for `overlap`; the one before it ends now."""
        if not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidRequest(f"At most {LONGEST_OVERLAP.days} days may overlap.", param="overlap_seconds")
        token, now = mint_for(key_id), now_of(self._clock)
        until = now + overlap if overlap else None
        digest = digest_of(token.encode(), self._pepper).hex()

        def change(document: Document) -> Document:
            if document["state"] == "revoked":
                raise Conflict("This key is revoked, and that is final; create a new one.")
            if document["expires_at"] is not None and document["expires_at"] <= now:
                raise Conflict("This key has expired; give it another expiry first.")
            previous = document["digest"] if until else None
            return {"digest": digest, "hint": token[-4:], "previous": previous, "previous_until": until}

        async with self._audit.change(actor, "keys.rotate", key_id) as entry:
            return Issued(await self._revise(entry, change, {"previous_until": until}), Secret(token))

    async def last_used_at(self, key: Key) -> datetime | None:
        """From the ledger, in ever longer spans: most keys that are looked at were used lately."""
        now = now_of(self._clock)
        for start in (*(now - span for span in LOOK_BACK), key.created_at):
            try:
                found = await self._store.records(
                    RecordQuery(start=max(start, key.created_at), where={"key_id": key.id}, limit=1)
                )
            except StoreUnavailable:
                return key.last_used_at
            if found:
                at: datetime = found[0]["at"]
                return at
            if start <= key.created_at:
                break
        return key.last_used_at

    def _key(self, document: Document) -> Key:
        return self._reader.read(document, Key)

    async def _look_again(self, key: Key, owner: User) -> None:
        """Whoever ends an account or a project says so first, and looks for its keys then: what was said
        before this one was there is seen here, and what is said from now on finds it."""
        found = await self._store.get("users", owner.id)
        again = None if found is None else self._reader.read(found, User)
        if again is None or again.created_at != owner.created_at:
            raise Conflict("The account of this user was ended.", param="user")
        if not again.is_active:
            raise Conflict(f"The user '{owner.id}' is suspended.", param="user")
        if await self._within(key.project, key.expires_at) != key.expires_at:
            raise Conflict("The end of the project has just changed; please try again.", param="project")

    async def _within(self, project: str | None, expires_at: datetime | None) -> datetime | None:
        """No key outlives its project."""
        ends = await self._end_of(project)
        if ends is None:
            return expires_at
        if ends <= now_of(self._clock):
            raise Conflict(f"The project '{shown(str(project))}' has ended.", param="project")
        return ends if expires_at is None else min(ends, expires_at)

    async def _end_of(self, project: str | None) -> datetime | None:
        found = None if project is None else await self._store.get("projects", project)
        ends: datetime | None = None if found is None else found.get("expires_at")
        return ends

    async def _cut(self, entry: Entry, key: Key) -> Key:
        """To the end that its project was given while the key was changed."""
        ends = await self._end_of(key.project)
        if ends is None or key.state == "revoked" or (key.expires_at is not None and key.expires_at <= ends):
            return key
        return await self._revise(entry, lambda _: {"expires_at": ends}, {})

    async def _revise(self, entry: Entry, change: Fields, details: dict[str, Any]) -> Key:
        document, has_changed = await revise(self._store, "keys", entry, change, details)
        if has_changed or document["state"] == "revoked":  # once more, for who has missed it
            await announce(self._state, [Change("keys", entry.target)])
        return self._key(document)

    async def _checked(self, key_id: str, token: str, new: NewKey) -> Key:
        now = now_of(self._clock)
        return Key(
            id=key_id, digest=digest_of(token.encode(), self._pepper).hex(), hint=token[-4:], created_at=now,
            user=user_id_in(new.user, "user"), name=name_in(new.name, "name"),
            project=optional_name(new.project, "project"), limits=limits_in(new.limits),
            models=None if new.models is None else await self._models.ids_of(new.models),
            expires_at=None if new.expires_at is None else in_future(new.expires_at, now, "expires_at"),
        )  # fmt: skip

    async def _checked_changes(self, changes: KeyChanges) -> dict[str, Any]:
        """The fields as they are stored."""
        fields = given(changes)
        if "name" in fields:
            fields["name"] = name_in(fields["name"], "name")
        if fields.get("models") is not None:
            fields["models"] = list(await self._models.ids_of(fields["models"]))
        if fields.get("expires_at") is not None:
            fields["expires_at"] = in_future(fields["expires_at"], now_of(self._clock), "expires_at")
        if "limits" in fields:
            fields["limits"] = msgspec.to_builtins(limits_in(fields["limits"]))
        return fields
