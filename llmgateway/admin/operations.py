"""What the operators' API does: each operation takes what was asked, and gives what is answered as JSON."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.responses import Response

from llmgateway.control.audit import Actor, AuditLine
from llmgateway.control.erasure import Erasure
from llmgateway.control.keys import OVERLAP, Issued, KeyChanges, KeyView, NewKey, key_view, used_key_view
from llmgateway.control.limits import LimitSet, subject_in
from llmgateway.control.models import ModelEntry, model_view
from llmgateway.control.moments import written
from llmgateway.control.people import NewUser, UserChanges, user_view
from llmgateway.control.replicas import ReplicaView, Seen, replica_views
from llmgateway.control.reports import Limit, RecordsAsk, UsageAsk, csv_of, record_view, usage_view
from llmgateway.control.services import Control
from llmgateway.domain.keys import State as KeyState
from llmgateway.domain.limits import Limits, Scope, Standing
from llmgateway.domain.people import UserState
from llmgateway.domain.policy import Lapse
from llmgateway.domain.ports import Clock, Document
from llmgateway.jobs.happenings import Happenings

PAGING = ("limit", "after")
OVERLAP_SECONDS, LONGEST_OVERLAP_SECONDS = int(OVERLAP.total_seconds()), 30 * 86_400


class Desk(Struct, frozen=True, kw_only=True):
    """What operators work with: `replicas` tells the health of upstreams, `config` all settings, masked,
    `standings` how limits stand now."""

    control: Control
    erasure: Erasure
    clock: Clock
    replicas: Seen
    standings: Callable[[Sequence[Scope]], Awaitable[Sequence[Standing]]]
    config: Callable[[], Mapping[str, Any]]
    happenings: Happenings


class Call(Struct, frozen=True, kw_only=True):
    """`id` is the part of the path that names the subject, empty where there is none; `scope` says what it is
    where that is not clear. `still` lets the actor in again, for what takes long; `last_event_id` is what who
    comes back to a stream has read."""

    actor: Actor
    id: str
    scope: str = ""
    still: Callable[[], Awaitable[object]]
    last_event_id: str | None = None


class Listed(Struct, frozen=True):
    """One page of a list."""

    data: list[Any]
    next: str | None = None


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for nothing more than the path says."""


class PageAsk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limit: Limit = 100
    after: str | None = None


class KeysAsk(PageAsk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user: str | None = None
    state: KeyState | None = None
    project: str | None = None


class UsersAsk(PageAsk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    state: UserState | None = None
    project: str | None = None
    provider: str | None = None
    lapsed: Lapse | None = None


class AuditAsk(PageAsk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    who: str | None = None
    action: str | None = None
    target: str | None = None
    result: str | None = None


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the key before stays valid; 0 ends it at once."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=LONGEST_OVERLAP_SECONDS)] = OVERLAP_SECONDS


class IssuedKey(KeyView, frozen=True, kw_only=True):
    """A key with its clear text, shown this once."""

    key: str


class Deleted(Struct, frozen=True, kw_only=True):
    id: str
    deleted: bool


Run = Callable[[Desk, Call, Any], Awaitable[object]]

# --- keys ---


async def create_key(desk: Desk, call: Call, asked: NewKey) -> object:
    return issued_key(await desk.control.keys.create(call.actor, asked))


async def list_keys(desk: Desk, call: Call, asked: KeysAsk) -> Listed:
    found, following = await desk.control.keys.page(_filters(asked), limit=asked.limit, after=asked.after)
    return Listed([key_view(key) for key in found], following)


async def get_key(desk: Desk, call: Call, asked: Nothing) -> object:
    key = await desk.control.keys.get(call.id)
    return used_key_view(key, await desk.control.keys.last_used_at(key))


async def change_key(desk: Desk, call: Call, asked: KeyChanges) -> object:
    return key_view(await desk.control.keys.change(call.actor, call.id, asked))


async def revoke_key(desk: Desk, call: Call, asked: Nothing) -> object:
    return key_view(await desk.control.keys.revoke(call.actor, call.id))


async def rotate_key(desk: Desk, call: Call, asked: Rotation) -> object:
    overlap = timedelta(seconds=asked.overlap_seconds)
    return issued_key(await desk.control.keys.rotate(call.actor, call.id, overlap))


def issued_key(issued: Issued) -> dict[str, Any]:
    return {"key": issued.token.reveal(), **key_view(issued.key)}


# --- users ---


async def create_user(desk: Desk, call: Call, asked: NewUser) -> object:
    return user_view(await desk.control.people.create(call.actor, asked))


async def list_users(desk: Desk, call: Call, asked: UsersAsk) -> Listed:
    found, following = await desk.control.people.page(_filters(asked), limit=asked.limit, after=asked.after)
    return Listed([user_view(user) for user in found], following)


async def get_user(desk: Desk, call: Call, asked: Nothing) -> object:
    return user_view(await desk.control.people.get(call.id))


async def change_user(desk: Desk, call: Call, asked: UserChanges) -> object:
    return user_view(await desk.control.people.change(call.actor, call.id, asked))


class Forgotten(Struct, frozen=True, kw_only=True):
    """Which pseudonym the use has now is told to nobody."""

    id: str
    forgotten: bool


async def forget_user(desk: Desk, call: Call, asked: Nothing) -> object:
    await desk.erasure.forget(call.actor, call.id)
    return Forgotten(id=call.id, forgotten=True)


# --- models ---


async def create_model(desk: Desk, call: Call, asked: ModelEntry) -> object:
    return model_view(await desk.control.models.create(call.actor, asked))


async def list_models(desk: Desk, call: Call, asked: PageAsk) -> Listed:
    found, following = await desk.control.models.page(limit=asked.limit, after=asked.after)
    return Listed([model_view(model) for model in found], following)


async def get_model(desk: Desk, call: Call, asked: Nothing) -> object:
    return model_view(await desk.control.models.get(call.id))


async def change_model(desk: Desk, call: Call, asked: ModelEntry) -> object:
    return model_view(await desk.control.models.change(call.actor, call.id, asked))


async def delete_model(desk: Desk, call: Call, asked: Nothing) -> object:
    await desk.control.models.delete(call.actor, call.id)
    return Deleted(id=call.id, deleted=True)


# --- limits ---


class LimitsView(Struct, frozen=True, kw_only=True):
    """What is set for a subject, and what holds for it. `source` is `settings`, `admin` or, of who signs in
    with an identity provider, `policy`; null where nothing is set."""

    scope: str
    id: str
    limits: Limits
    effective: Limits
    source: str | None


class StandingView(Struct, frozen=True, kw_only=True):
    """`left` of `limit`; `resets_at` is when nothing of what is used now counts any more."""

    name: str
    limit: int
    used: int
    left: int
    reset_seconds: float
    resets_at: datetime


class StandingLimits(LimitsView, frozen=True, kw_only=True):
    standings: list[StandingView]


async def list_limits(desk: Desk, call: Call, asked: PageAsk) -> Listed:
    found, following = await desk.control.limits.page(limit=asked.limit, after=asked.after)
    return Listed([limits_view(one) for one in found], following)


async def get_limits(desk: Desk, call: Call, asked: Nothing) -> object:
    return await _standing(desk, await desk.control.limits.get(subject_in(call.scope, call.id)))


async def put_limits(desk: Desk, call: Call, asked: Limits) -> object:
    subject = subject_in(call.scope, call.id)
    return await _standing(desk, await desk.control.limits.put(call.actor, subject, asked))


async def delete_limits(desk: Desk, call: Call, asked: Nothing) -> object:
    subject = subject_in(call.scope, call.id)
    return await _standing(desk, await desk.control.limits.delete(call.actor, subject))


def limits_view(found: LimitSet) -> LimitsView:
    return LimitsView(
        scope=found.subject.kind, id=found.subject.id, limits=found.limits, effective=found.effective,
        source=found.source,
    )  # fmt: skip


async def _standing(desk: Desk, found: LimitSet) -> StandingLimits:
    standings = await desk.standings(found.scopes)
    now = desk.clock.now()
    views = [
        StandingView(
            name=one.name, limit=one.limit, used=one.used, left=one.left, reset_seconds=round(one.reset, 3),
            resets_at=_to_the_next_second(now + timedelta(seconds=one.reset)),
        )
        for one in standings
    ]  # fmt: skip
    view = limits_view(found)
    fields = {name: getattr(view, name) for name in LimitsView.__struct_fields__}
    return StandingLimits(**fields, standings=views)


def _to_the_next_second(moment: datetime) -> datetime:
    """Never too early."""
    return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)


# --- what happened ---


async def usage(desk: Desk, call: Call, asked: UsageAsk) -> object:
    report = await desk.control.reports.usage(asked)
    if asked.format == "csv":
        name = {"content-disposition": 'attachment; filename="usage.csv"'}
        return Response(csv_of(report), media_type="text/csv; charset=utf-8", headers=name)
    return Listed([usage_view(row) for row in report.rows], report.next)


async def requests(desk: Desk, call: Call, asked: RecordsAsk) -> Listed:
    found, following = await desk.control.reports.records(asked)
    return Listed([record_view(record) for record in found], following)


async def audit_lines(desk: Desk, call: Call, asked: AuditAsk) -> Listed:
    page = await desk.control.audit.page(_filters(asked), limit=asked.limit, after=asked.after)
    return Listed([line_view(line) for line in page.data], page.next)


def line_view(line: Document) -> dict[str, Any]:
    fields = AuditLine.__struct_fields__
    return {name: line.get(name) for name in fields} | {"at": written(line["at"])}


async def providers(desk: Desk, call: Call, asked: PageAsk) -> Listed:
    catalog = await desk.control.models.catalog()
    views: list[ReplicaView] = replica_views(catalog, desk.replicas(), desk.clock)
    rest = [view for view in views if asked.after is None or view.address > asked.after]
    page = rest[: asked.limit]
    return Listed(page, page[-1].address if len(rest) > len(page) else None)


async def config(desk: Desk, call: Call, asked: Nothing) -> object:
    return desk.config()


def _filters(asked: Struct) -> dict[str, str | None]:
    """The equalities that a list was asked for."""
    values = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return {name: value for name, value in values.items() if value is not None and name not in PAGING}
