"""Why a key may do what it may: its state and its owner's, where each right comes from, all its limits."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from llmgateway.control.absence import due_at
from llmgateway.control.changes import document_of
from llmgateway.control.granted import GRANTED, UNGRANTED
from llmgateway.control.limits import LimitSet, Subject
from llmgateway.control.services import Control
from llmgateway.domain.book import NO_LIMITS
from llmgateway.domain.errors import NotFound
from llmgateway.domain.keys import PREFIX, Key, models_of
from llmgateway.domain.people import User
from llmgateway.domain.policy import Grant, Policy
from llmgateway.domain.ports import Clock

HAND, NOBODY, GONE = "an operator", "the default", "which the configuration has no more"
LAPSED: Mapping[str, str] = {
    "denied": "its owner was refused at the last sign-in: no rule gives a role",
    "absent": "its owner has not signed in for too long",
}


class Source(Struct, frozen=True):
    """One right, and who gave it."""

    what: str
    value: Any
    source: str


class Story(Struct, frozen=True, kw_only=True):
    """`troubles` are why calls with the key are refused, none where they pass. `models` are those that it may
    call now; of `limits` only those that hold something."""

    key: Key
    user: User | None
    troubles: tuple[str, ...]
    sign_in_due: datetime | None
    sources: tuple[Source, ...]
    models: tuple[str, ...]
    limits: tuple[LimitSet, ...]


async def explain_key(control: Control, policy: Policy, clock: Clock, key_id: str) -> Story:
    """`key_id` may be written as people see it, with the prefix of keys."""
    key = await control.keys.get(key_id.removeprefix(f"{PREFIX}_"))
    try:
        user = await control.people.get(key.user)
    except NotFound:
        user = None
    allowed = models_of(key.models, None if user is None else user.models)
    known = [model.id for model in await control.models.catalog()]
    models = tuple(model for model in known if allowed is None or model in allowed)
    limits = [await control.limits.get(subject) for subject in _subjects(key, models)]
    return Story(
        key=key, user=user, troubles=tuple(_troubles(key, user, clock.now())),
        sign_in_due=None if user is None else due_at(user, policy.keys),
        sources=() if user is None else tuple(_sources(user, policy)), models=models,
        limits=tuple(found for found in limits if found.effective != NO_LIMITS),
    )  # fmt: skip


def _subjects(key: Key, models: tuple[str, ...]) -> Iterator[Subject]:
    """In the order in which they refuse."""
    yield Subject("key", key.id)
    yield Subject("user", key.user)
    yield from (Subject("model", model) for model in models)
    if key.project is not None:
        yield Subject("project", key.project)


def _troubles(key: Key, user: User | None, now: datetime) -> Iterator[str]:
    if key.state != "active":
        yield f"the key is {key.state}"
    if key.expires_at is not None and key.expires_at <= now:
        yield "the key has expired"
    if user is None:
        return
    if user.state != "active":
        is_ours = user.state == "suspended"
        yield "an operator suspended its owner" if is_ours else f"its owner is {user.state}"
    if user.lapsed is not None:
        yield LAPSED.get(user.lapsed, f"its owner is shut out: {user.lapsed}")
    if user.models == ():
        yield "its owner may call no model"


def _sources(user: User, policy: Policy) -> Iterator[Source]:
    known, stored = {rule.name for rule in policy.rules}, document_of(user)
    for name in GRANTED:
        if user.provider is not None and name not in user.by_hand:
            kind = name.removesuffix("s")
            yield from (_source(grant, known) for grant in user.grants if grant.what == kind)
        else:
            is_default = stored[name] == UNGRANTED[name] and name not in user.by_hand
            value = "*" if name == "models" and stored[name] is None else stored[name]
            yield Source(name, value, NOBODY if is_default else HAND)


def _source(grant: Grant, known: set[str]) -> Source:
    value = grant.value if grant.most is None else {grant.value: grant.most}
    gone = "" if grant.rule in known else f", {GONE}"
    return Source(grant.what, value, f"the rule '{grant.rule}'{gone}")
