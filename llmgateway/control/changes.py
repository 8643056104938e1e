"""Changes to stored documents: made against the revision that was read, then announced to every process."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from llmgateway.control.audit import Entry
from llmgateway.domain.errors import Conflict, NotFound, StoreUnavailable, shown
from llmgateway.domain.ports import Change, Document, Documents, Kind, State

log = logging.getLogger(__name__)

TRIES = 8
PAGE = 1000
Fields = Callable[[Document], Document]
SINGULAR: Mapping[Kind, str] = {
    "keys": "key", "users": "user", "models": "model", "projects": "project", "announcements": "announcement",
    "accounts": "account",
}  # fmt: skip


def document_of(value: Struct) -> Document:
    """A value as stores take it: times stay times, tuples are lists."""
    plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    return {name: list(field) if isinstance(field, tuple) else field for name, field in plain.items()}


def given(changes: Struct) -> dict[str, Any]:
    """The fields that a change names."""
    fields = {name: getattr(changes, name) for name in changes.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not UNSET}


def no_such(kind: Kind, name: str) -> NotFound:
    return NotFound(f"There is no {SINGULAR[kind]} '{shown(name)}'.")


async def need(store: Documents, kind: Kind, name: str) -> Document:
    document = await store.get(kind, name)
    if document is None:
        raise no_such(kind, name)
    return document


async def _nothing_else() -> None: ...


async def revise(
    store: Documents, kind: Kind, entry: Entry, change: Fields, details: Mapping[str, object],
    unless: Callable[[], Awaitable[None]] = _nothing_else,
) -> tuple[Document, bool]:  # fmt: skip
    """Puts what `change` gives over the fields of the document that `entry` is about; says whether it was
    news. Fields that this version does not know are kept. `unless` is asked between reading and writing, and
    raises what stands against it."""
    for _ in range(TRIES):
        document = await need(store, kind, entry.target)
        changed = {**document, **change(document)}
        if changed == document:
            return document, False
        await unless()
        await entry.accept(details)
        changed["revision"] = document["revision"] + 1
        try:
            await store.replace(kind, changed)
        except Conflict:
            continue
        return changed, True
    raise Conflict(f"The {SINGULAR[kind]} '{shown(entry.target)}' keeps changing; please try again.")


async def each(store: Documents, kind: Kind, where: Mapping[str, str | None]) -> AsyncIterator[Document]:
    after: str | None = None
    while True:
        page = await store.find(kind, where, limit=PAGE, after=after)
        for document in page.data:
            yield document
        if page.next is None:
            return
        after = page.next


async def announce_user(store: Documents, state: State, user_id: str) -> None:
    """With all of the user's keys: caches hold the owner with the key."""
    changed = [Change("keys", key["id"]) async for key in each(store, "keys", {"user": user_id})]
    await announce(state, [Change("users", user_id), *changed])


async def announce(state: State, changes: Iterable[Change]) -> None:
    """The change is made. What cannot be announced now is as soon as that is possible; until then, and if
    this process ends before, what others remember of it runs out by itself."""
    failed: list[tuple[Change, StoreUnavailable]] = []
    for change in changes:
        try:
            await state.announce(change)
        except StoreUnavailable as error:
            failed.append((change, error))
    if failed:
        first, why = failed[0]
        told = {"topic": first.topic, "id": first.id, "changes": len(failed), "error": why.message}
        log.warning("a change could not be announced yet; until it is, processes learn of it when their "
                    "memory runs out", extra={"fields": told})  # fmt: skip
