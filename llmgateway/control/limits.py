"""Limits: where each is kept, which of them holds, and how operators change them.

Those of a user and of a key stand in their own documents; those of a project, of a model and of everybody
(the default of each user) in documents of their own. The settings are the base: what an operator puts takes
the place of a subject's whole set, until it is taken away again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

import msgspec
from msgspec import Struct, structs

from llmgateway.control.audit import Actor
from llmgateway.control.changes import announce, each
from llmgateway.control.checks import limits_in
from llmgateway.control.ground import Ground
from llmgateway.control.keys import KeyChanges, Keys
from llmgateway.control.moments import now_of
from llmgateway.control.people import People, UserChanges
from llmgateway.domain.book import NO_LIMITS, LimitBook
from llmgateway.domain.errors import Conflict, InvalidRequest, NotFound, shown
from llmgateway.domain.keys import Key
from llmgateway.domain.limits import Limits, Scope, ScopeKind
from llmgateway.domain.people import User
from llmgateway.domain.ports import Change, Document, Documents

SubjectKind = Literal["user", "project", "key", "model", "default"]
KINDS: Sequence[SubjectKind] = get_args(SubjectKind)
EVERYBODY = "default"
TRIES = 8


class Subject(Struct, frozen=True):
    """Whose limits: `id` is `default` for those of everybody."""

    kind: SubjectKind
    id: str

    @property
    def name(self) -> str:
        return EVERYBODY if self.kind == EVERYBODY else f"{self.kind}/{self.id}"


class LimitSet(Struct, frozen=True):
    """What is set for a subject, and what holds. `source` is where it is set, None where nowhere."""

    subject: Subject
    limits: Limits
    effective: Limits
    source: Literal["settings", "admin", "policy"] | None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What is counted: nothing for everybody, since each user is."""
        if self.subject.kind == EVERYBODY or self.effective == NO_LIMITS:
            return ()
        return (Scope(cast(ScopeKind, self.subject.kind), self.subject.id, self.effective),)


async def load_book(store: Documents, base: LimitBook) -> LimitBook:
    """The settings' limits, with what operators put over them."""
    default, projects, models = base.default, dict(base.projects), dict(base.models)
    async for document in each(store, "limits", {}):
        kind, _, id = document["id"].partition("/")
        limits = msgspec.convert(document["limits"], Limits)
        if kind == EVERYBODY:
            default = limits
        elif kind == "project":
            projects[id] = limits
        elif kind == "model":
            models[id] = limits
    return LimitBook(
        default=default, users=base.users, projects=projects, models=models, weights=base.weights
    )


def subject_in(kind: str, id: str = "") -> Subject:
    """Raises `InvalidRequest` for a kind that there is not."""
    if kind not in KINDS:
        message = f"There are limits of {', '.join(KINDS)}, not of '{shown(kind)}'."
        raise InvalidRequest(message, param="scope")
    if kind == EVERYBODY:
        if id not in ("", EVERYBODY):
            raise NotFound(f"There is one default, not '{shown(id)}'.")
        return Subject("default", EVERYBODY)
    if not id:
        raise InvalidRequest(f"Say which {kind}.", param="id")
    return Subject(cast(SubjectKind, kind), id)


class LimitSets:
    """Every change reaches all processes within a second."""

    def __init__(self, ground: Ground, people: People, keys: Keys) -> None:
        self._store = ground.store
        self._state = ground.state
        self._audit = ground.audit
        self._clock = ground.clock
        self._configured = ground.configured
        self._people = people
        self._keys = keys

    async def get(self, subject: Subject) -> LimitSet:
        """A user, project or model that nobody has heard of has the limits that one would have."""
        return await self._found(subject, await load_book(self._store, self._configured().limits))

    async def all_of(self, subjects: Sequence[Subject]) -> list[LimitSet]:
        book = await load_book(self._store, self._configured().limits)
        return [await self._found(subject, book) for subject in subjects]

    async def _found(self, subject: Subject, book: LimitBook) -> LimitSet:
        base = self._configured().limits
        if subject.kind == "key":
            return _set(subject, (await self._keys.get(subject.id)).limits, NO_LIMITS)
        if subject.kind == "user":
            document = await self._store.get("users", subject.id)
            own = NO_LIMITS if document is None else msgspec.convert(document["limits"], Limits)
            found = _set(subject, own, base.users.get(subject.id, NO_LIMITS))
            if found.source == "admin" and document is not None and _is_granted(document):
                found = structs.replace(found, source="policy")
            return structs.replace(found, effective=book.user_limits(subject.id, own))
        stored = await self._store.get("limits", subject.name)
        put = None if stored is None else msgspec.convert(stored["limits"], Limits)
        return _set(subject, put, _configured(base, subject))

    async def put(self, actor: Actor, subject: Subject, limits: Limits) -> LimitSet:
        """In the place of all that was set for it. A user who is not known yet is made."""
        limits = limits_in(limits)
        if subject.kind == "user":
            await self._people.ensure(actor, subject.id)
            await self._people.change(actor, subject.id, UserChanges(limits=limits))
        elif subject.kind == "key":
            await self._keys.change(actor, subject.id, KeyChanges(limits=limits))
        else:
            await self._put(actor, subject, limits)
        return await self.get(subject)

    async def delete(self, actor: Actor, subject: Subject) -> LimitSet:
        """Back to what the settings say. Where nothing was put, nothing changes."""
        if subject.kind == "user":
            if await self._store.get("users", subject.id) is not None:
                await self._people.change(actor, subject.id, UserChanges(limits=None))
        elif subject.kind == "key":
            await self._keys.change(actor, subject.id, KeyChanges(limits=None))
        else:
            async with self._audit.change(actor, "limits.delete", subject.name) as entry:
                if await self._store.get("limits", subject.name) is None:
                    return await self.get(subject)
                await entry.accept({})
                if await self._store.delete("limits", subject.name):
                    await announce(self._state, [Change("limits", subject.name)])
        return await self.get(subject)

    async def page(
        self, *, limit: int, after: str | None = None, matches: Callable[[Subject], bool] = lambda _: True
    ) -> tuple[list[LimitSet], str | None]:
        """All that is set anywhere, by name; of those that match, if not every one is asked for."""
        later = (name for name in sorted(await self._names()) if after is None or name > after)
        rest = [one for one in (subject_in(*name.split("/", 1)) for name in later) if matches(one)]
        book = await load_book(self._store, self._configured().limits)
        found = [await self._found(subject, book) for subject in rest[:limit]]
        return found, rest[limit - 1].name if len(rest) > limit else None

    async def scopes_of(self, user: User, keys: Sequence[Key], models: Iterable[str]) -> list[Scope]:
        """All that limits a person's calls: their own limits, their project's, those of each key and of each
        model."""
        book = await load_book(self._store, self._configured().limits)
        found = [Scope("user", user.id, book.user_limits(user.id, user.limits))]
        if user.project is not None:
            found.append(Scope("project", user.project, book.projects.get(user.project, NO_LIMITS)))
        found += [Scope("key", key.id, key.limits) for key in keys]
        found += [Scope("model", model, book.models.get(model, NO_LIMITS)) for model in models]
        return [one for one in found if one.limits != NO_LIMITS]

    async def _put(self, actor: Actor, subject: Subject, limits: Limits) -> None:
        said = msgspec.to_builtins(limits)
        async with self._audit.change(actor, "limits.change", subject.name) as entry:
            await entry.accept(said)
            for _ in range(TRIES):
                if await self._stored(subject.name, said):
                    await announce(self._state, [Change("limits", subject.name)])
                    return
            raise Conflict(f"The limits of '{shown(subject.name)}' keep changing; please try again.")

    async def _stored(self, name: str, said: Mapping[str, Any]) -> bool:
        """False where another change came in between."""
        before = await self._store.get("limits", name)
        document = {"id": name, "revision": 0, "limits": said, "at": now_of(self._clock)}
        try:
            if before is None:
                await self._store.insert("limits", document)
            else:
                await self._store.replace("limits", document | {"revision": before["revision"] + 1})
        except Conflict:
            return False
        return True

    async def _names(self) -> set[str]:
        base = self._configured().limits
        names = {document["id"] async for document in each(self._store, "limits", {})}
        names |= {f"user/{user['id']}" async for user in each(self._store, "users", {}) if user.get("limits")}
        names |= {f"key/{key['id']}" async for key in each(self._store, "keys", {}) if key.get("limits")}
        names |= {f"user/{id}" for id in base.users} | {f"project/{id}" for id in base.projects}
        names |= {f"model/{id}" for id in base.models}
        return names | ({EVERYBODY} if base.default != NO_LIMITS else set())


def _is_granted(user: Document) -> bool:
    return user.get("provider") is not None and "limits" not in user.get("by_hand", ())


def _set(subject: Subject, stored: Limits | None, configured: Limits) -> LimitSet:
    if stored is not None and (stored != NO_LIMITS or subject.kind in ("project", "model", EVERYBODY)):
        return LimitSet(subject, stored, stored, "admin")
    return LimitSet(subject, configured, configured, None if configured == NO_LIMITS else "settings")


def _configured(base: LimitBook, subject: Subject) -> Limits:
    if subject.kind == EVERYBODY:
        return base.default
    return {"project": base.projects, "model": base.models}[subject.kind].get(subject.id, NO_LIMITS)
