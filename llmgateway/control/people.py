"""Users: made by hand or with their first key, given roles and limits, suspended.

Of who signs in with an identity provider, a field of `GRANTED` that is changed here is the operator's from
then on, and the policy leaves it alone, until it is set to null: then it is what the policy gave last.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llmgateway.control.audit import Actor
from llmgateway.control.changes import announce_user, document_of, given, need, revise
from llmgateway.control.checks import email_in, limits_in, optional_name, user_id_in
from llmgateway.control.comebacks import Comebacks
from llmgateway.control.granted import GRANTED, UNGRANTED, granted_fields
from llmgateway.control.ground import Ground
from llmgateway.control.models import Models
from llmgateway.control.moments import now_of
from llmgateway.control.plain import view_of
from llmgateway.domain.errors import Conflict, InvalidRequest, shown
from llmgateway.domain.later import Reader
from llmgateway.domain.limits import Limits
from llmgateway.domain.people import GONE, Role, User, UserState
from llmgateway.domain.policy import EVERY_MODEL
from llmgateway.domain.ports import Document

log = logging.getLogger(__name__)

ROLES, STATES = frozenset(get_args(Role)), frozenset(get_args(UserState))


class NewUser(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`id` is the `user` of keys and records."""

    id: str
    name: str | None = None
    email: str | None = None
    roles: list[Role] | None = None
    project: str | None = None
    limits: Limits | None = None


class UserChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be changed; null takes a value away. `["*"]` is every model. Without a `provider` a user
    is the operators' alone, until the next sign-in, which may be with another one."""

    name: str | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    roles: list[Role] | UnsetType | None = UNSET
    project: str | UnsetType | None = UNSET
    limits: Limits | UnsetType | None = UNSET
    models: list[str] | UnsetType | None = UNSET
    state: Literal["active", "suspended"] | UnsetType = UNSET
    provider: UnsetType | None = UNSET


class UserView(Struct, frozen=True, kw_only=True):
    """A user as operators see it. `by_hand`: what the policy of an identity provider's users leaves alone;
    `lapsed`: why it shut this one out."""

    id: str
    created_at: datetime
    name: str | None
    email: str | None
    roles: tuple[str, ...]
    project: str | None
    limits: Limits
    models: tuple[str, ...] | None
    state: str
    provider: str | None
    signed_in_at: datetime | None
    lapsed: str | None
    by_hand: tuple[str, ...]


def user_view(user: User) -> dict[str, Any]:
    """As JSON."""
    fields = {name: getattr(user, name) for name in UserView.__struct_fields__}
    return view_of(UserView(**fields))


class People:
    """All users, of every kind."""

    def __init__(self, ground: Ground) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._models = Models(ground)
        self._comebacks = Comebacks.over(ground)
        self._reader = Reader(log)

    async def create(self, actor: Actor, new: NewUser) -> User:
        """Whoever comes back after an end stays held back as before, unless `new` says otherwise."""
        user = self.checked(new)
        async with self._audit.change(actor, "users.create", user.id) as entry:
            if await self._store.get("users", user.id) is not None:
                raise _taken(user.id)
            held = await self._comebacks.held(user.id)
            if new.limits is not None:
                held.pop("limits", None)
            user = msgspec.convert({**document_of(user), **held}, User)
            fields = ("name", "email", "roles", "project", "limits")
            await entry.accept({name: getattr(user, name) for name in fields})
            try:
                await self._store.insert("users", document_of(user))
            except Conflict:
                raise _taken(user.id) from None
        return user

    async def ensure(self, actor: Actor, user_id: str) -> User:
        """The user of this id; made now where there is none."""
        document = await self._store.get("users", user_id)
        if document is not None:
            return self._user(document)
        try:
            return await self.create(actor, NewUser(id=user_id))
        except Conflict:  # in the same moment as somebody else
            return await self.get(user_id)

    async def get(self, user_id: str) -> User:
        return self._user(await need(self._store, "users", user_id))

    async def page(
        self, where: dict[str, str | None], *, limit: int, after: str | None = None
    ) -> tuple[Sequence[User], str | None]:
        """By id. `where` may hold `state`, `project`, `email`, `provider` and `lapsed`."""
        page = await self._store.find("users", where, limit=limit, after=after)
        return [self._user(document) for document in page.data], page.next

    async def change(self, actor: Actor, user_id: str, changes: UserChanges) -> User:
        async with self._audit.change(actor, "users.change", user_id) as entry:
            fields = _checked_changes(changes)
            if fields.get("models") not in (None, [EVERY_MODEL]):
                fields["models"] = list(await self._models.ids_of(fields["models"]))
            document, has_changed = await revise(
                self._store, "users", entry, lambda before: _taken_over(before, fields), fields
            )
            if has_changed:
                await announce_user(self._store, self._state, user_id)
        return self._user(document)

    def _user(self, document: Document) -> User:
        return self._reader.read(document, User)

    def checked(self, new: NewUser) -> User:
        """As it would be made. Raises `InvalidRequest`."""
        return User(
            id=_unlike_gone(user_id_in(new.id, "id")), created_at=now_of(self._clock),
            name=optional_name(new.name, "name"), email=email_in(new.email),
            roles=tuple(_roles_in(["user"] if new.roles is None else new.roles)),
            project=optional_name(new.project, "project"), limits=limits_in(new.limits),
        )  # fmt: skip


def _checked_changes(changes: UserChanges) -> dict[str, Any]:
    """The fields as they are stored."""
    fields = given(changes)
    for name in ("name", "project"):
        if name in fields:
            fields[name] = optional_name(fields[name], name)
    if "email" in fields:
        fields["email"] = email_in(fields["email"])
    if fields.get("roles") is not None:
        fields["roles"] = _roles_in(fields["roles"])
    if fields.get("limits") is not None:
        fields["limits"] = msgspec.to_builtins(limits_in(fields["limits"]))
    return fields


def _taken_over(before: Document, fields: Document) -> Document:
    """What null means depends on who the user is. A form that says again what is so takes nothing over."""
    if before.get("state") == "gone":
        raise Conflict("This account was ended, and that is final.")
    if "state" in fields and before.get("state") not in STATES:
        raise Conflict("A later version of the gateway set the state of this user; only that can change it.")
    own = {name: value for name, value in fields.items() if name not in GRANTED or value is not None}
    given_back = [name for name in GRANTED if name in fields and fields[name] is None]
    if "provider" in own:
        own["lapsed"] = None  # the policy concerns this one no more, until the next sign-in
    if own.get("models") == [EVERY_MODEL]:
        own["models"] = None
    if "roles" in own:
        own["roles"] += [role for role in before.get("roles", ()) if role not in ROLES]
    if before.get("provider") is None:
        return own | {name: UNGRANTED[name] for name in given_back}
    granted = granted_fields(msgspec.convert(before, User).grants)
    changed = {name for name in GRANTED if name in own and own[name] != before.get(name)}
    held = [name for name in GRANTED if name in changed or name in before.get("by_hand", ())]
    own |= {name: granted[name] for name in given_back}
    return own | {"by_hand": [name for name in held if name not in given_back]}


def _roles_in(roles: Sequence[Role]) -> list[Role]:
    if not roles:
        message = "roles must name at least one role; to shut a user out, set state to 'suspended'."
        raise InvalidRequest(message, param="roles")
    return list(dict.fromkeys(roles))


def _unlike_gone(user_id: str) -> str:
    if user_id.startswith(GONE):
        raise InvalidRequest(f"id must not begin with '{GONE}': so do accounts that were ended.", param="id")
    return user_id


def _taken(user_id: str) -> Conflict:
    return Conflict(f"There is a user '{shown(user_id)}' already.", param="id")
