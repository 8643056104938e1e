"""Signing in with an identity provider: a user is made, or brought into line with what the policy grants now.

Grants and withdrawals alike take effect at every sign-in. Fields that an operator set by hand stay as they
are; who is given no role is shut out whatever was set, and so are all keys, until a sign-in that is admitted.
"""

import logging
from functools import partial
from typing import Any, get_args

import msgspec
from msgspec import Struct

from llmgateway.control.audit import Actor, Entry
from llmgateway.control.changes import announce_user, document_of, revise
from llmgateway.control.checks import user_id_in
from llmgateway.control.comebacks import Comebacks
from llmgateway.control.granted import GRANTED, UNGRANTED, granted_fields, grants_in
from llmgateway.control.ground import Ground
from llmgateway.control.models import Models
from llmgateway.control.moments import now_of
from llmgateway.control.names import has_account
from llmgateway.control.policy import decide
from llmgateway.control.projects import SERVICE
from llmgateway.domain.catalog import Catalog
from llmgateway.domain.errors import Conflict, GatewayError, NotAllowed
from llmgateway.domain.identity import Identity
from llmgateway.domain.people import GONE, User
from llmgateway.domain.policy import EVERY_MODEL, Decision, Grant, Lapse
from llmgateway.domain.ports import Document

log = logging.getLogger(__name__)

CACHED = (*GRANTED, "lapsed", "state")  # what calls are judged by
SUSPENDED = "suspended"
LAPSES = frozenset(get_args(Lapse))
NAME_LENGTH, EMAIL_LENGTH = 100, 254


class Arrival(Struct, frozen=True):
    """Somebody at the door: who they are here, and what they were granted."""

    id: str
    identity: Identity
    decision: Decision


class Enrolment:
    """`welcome` is for identities whose proof was verified before."""

    def __init__(self, ground: Ground) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._configured = ground.configured
        self._models = Models(ground)
        self._comebacks = Comebacks.over(ground)

    async def welcome(self, actor: Actor, identity: Identity) -> User:
        """Raises `NotAllowed` for whom no rule gives a role and for who is suspended, `Conflict` where the
        name is somebody else's."""
        arrival = await self._arrival(identity)
        async with self._audit.change(actor, "users.sign_in", arrival.id) as entry:
            before = await self._refuse_impostors(arrival)
            if not arrival.decision.is_admitted:
                if before.get("provider") is not None:  # of who never came in nothing is kept
                    await self._shut_out(actor, arrival)
                raise _denied()
            is_out = before.get("state", "active") != "active" or _still_lapsed(before) is not None
            await entry.accept(_told(arrival, before), result=SUSPENDED if is_out else "ok")
            user = await self._let_in(entry, arrival)
            if not user.is_active:
                raise NotAllowed("This account is suspended; please ask the operators.", code=SUSPENDED)
        return user

    async def _arrival(self, identity: Identity) -> Arrival:
        policy = self._configured().policy
        if not policy.rules:
            log.warning("the policy has no rules, so nobody is admitted who signs in elsewhere")
        decision = decide(policy, identity.attributes, identity.provider)
        catalog = await self._models.catalog()
        grants = tuple(_by_id(grant, catalog) for grant in decision.grants)
        return Arrival(user_id_in(identity.subject, "subject"), identity, Decision(decision.rules, grants))

    async def _refuse_impostors(self, arrival: Arrival) -> Document:
        """The user as known before, empty for a new one. Nobody gets in as somebody else who has the same
        name in another place."""
        if arrival.id.startswith(SERVICE):
            raise Conflict("This name is a project's.", param="subject", code="name_taken")
        if arrival.id.startswith(GONE):
            raise Conflict("This name is an ended account's.", param="subject", code="name_taken")
        await self._refuse_local(arrival.id)
        document = await self._store.get("users", arrival.id) or {}
        _refuse_another(document, arrival)
        return document

    async def _refuse_local(self, name: str) -> None:
        if await has_account(self._store, self._clock, name):
            raise Conflict("There is a local account of this name.", param="subject", code="name_taken")

    async def _shut_out(self, actor: Actor, arrival: Arrival) -> None:
        def change(before: Document) -> Document:
            return {**self._granted(arrival, before), "lapsed": "denied"}

        async with self._audit.change(actor, "users.lapse", arrival.id) as entry:
            _, is_news = await revise(self._store, "users", entry, change, {"why": "denied"})
        if is_news:
            await announce_user(self._store, self._state, arrival.id)

    async def _let_in(self, entry: Entry, arrival: Arrival) -> User:
        """Who signs up here takes the name as an account first, and becomes a user then. So an account that
        is looked for after the user was read, or after there was none, is seen in time."""
        if await self._store.get("users", arrival.id) is None:
            await self._refuse_local(arrival.id)
            user = User(id=arrival.id, created_at=now_of(self._clock))
            held = await self._comebacks.held(arrival.id)  # as if an operator had prepared it
            document = {**document_of(user), **held, **self._fields(arrival, held)}
            try:
                await self._store.insert("users", document)
                return msgspec.convert(document, User)
            except Conflict:
                log.debug("somebody came in twice in the same moment")
        return await self._brought_into_line(entry, arrival)

    async def _brought_into_line(self, entry: Entry, arrival: Arrival) -> User:
        """Sign-ins that change nothing of what calls are judged by leave caches alone."""
        seen: Document = {}

        def change(before: Document) -> Document:
            _refuse_another(before, arrival)  # who may have come meanwhile
            seen.update(before)
            return self._fields(arrival, before)

        document, _ = await revise(
            self._store, "users", entry, change, {}, partial(self._refuse_local, arrival.id)
        )
        if any(seen.get(name) != document[name] for name in CACHED):
            await announce_user(self._store, self._state, arrival.id)
        return msgspec.convert(document, User)

    def _fields(self, arrival: Arrival, before: Document) -> dict[str, Any]:
        identity = arrival.identity
        said = {"name": _line(identity.name, NAME_LENGTH), "email": _line(identity.email, EMAIL_LENGTH)}
        return {
            **self._granted(arrival, before), **{name: one for name, one in said.items() if one is not None},
            "provider": identity.provider, "signed_in_at": now_of(self._clock),
            "lapsed": _still_lapsed(before),
        }  # fmt: skip

    def _granted(self, arrival: Arrival, before: Document) -> dict[str, Any]:
        grants, by_hand = arrival.decision.grants, _by_hand(before)
        granted = granted_fields(grants)
        if arrival.id in self._configured().limits.users:
            granted["limits"] = {}  # the settings speak of this very person
        fields = {name: value for name, value in granted.items() if name not in by_hand}
        return {**fields, "grants": grants_in(grants), "by_hand": by_hand}


def _refuse_another(before: Document, arrival: Arrival) -> None:
    if before.get("provider") not in (None, arrival.identity.provider):
        message = "This name is somebody's who signs in with another identity provider."
        raise Conflict(message, param="subject", code="name_taken")


def _still_lapsed(before: Document) -> str | None:
    """A sign-in that is admitted lets in again, but for what a later version says against it."""
    lapsed: str | None = before.get("lapsed")
    return None if lapsed in LAPSES else lapsed


def _by_hand(before: Document) -> list[str]:
    """Of who comes for the first time, all that an operator has prepared."""
    if before.get("signed_in_at") is not None:
        return list(before.get("by_hand", ()))
    return [name for name in GRANTED if name in before and before[name] != UNGRANTED[name]]


def _by_id(grant: Grant, catalog: Catalog) -> Grant:
    """Rules may name a model by an alias, or before there is one."""
    if grant.what != "model" or grant.value == EVERY_MODEL:
        return grant
    model = catalog.find(grant.value)
    return grant if model is None else msgspec.structs.replace(grant, value=model.id)


def _line(value: str | None, most: int) -> str | None:
    """What the provider says of somebody, as far as it can be shown."""
    clean = "".join(c for c in value or "" if c.isprintable()).strip()[:most]
    return clean or None


def _told(arrival: Arrival, before: Document) -> dict[str, object]:
    """What the rules gave, and what of it the user had not or has no more."""
    granted, by_hand = granted_fields(arrival.decision.grants), _by_hand(before)
    last = {name: before.get(name, UNGRANTED[name]) for name in granted}
    changed = {name: last[name] for name in granted if name not in by_hand and last[name] != granted[name]}
    return {
        "provider": arrival.identity.provider, "rules": arrival.decision.rules, "granted": granted,
        "before": changed, "by_hand": by_hand,
    }  # fmt: skip


def _denied() -> GatewayError:
    message = "Your organisation's account gives you no access here; please ask the operators."
    return NotAllowed(message, code="not_entitled")
