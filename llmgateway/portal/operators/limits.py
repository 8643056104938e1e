"""All limits: what is set for whom, how it stands, and other figures put in its place."""

from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from llmgateway.control.limits import EVERYBODY, KINDS, LimitSet, Subject, subject_in
from llmgateway.domain.errors import Conflict, GatewayError, InvalidRequest, NotFound
from llmgateway.domain.limits import Limits, Standing
from llmgateway.portal.form import Form
from llmgateway.portal.operators.listing import PER_PAGE, holds
from llmgateway.portal.operators.rights import ensure_may_limit
from llmgateway.portal.sign_in import status_of
from llmgateway.portal.standings import standings_of
from llmgateway.portal.visit import Answer, Desk, Page, Redirect, Visit
from llmgateway.portal.words import later

MICROS = 1_000_000
MONEY = "cost_per_month"
NO_MONEY = later("Please write an amount of money such as 25 or 12.50.")


class Row(Struct, frozen=True):
    """A subject, and how its limits stand: nowhere for everybody, since each person is counted."""

    found: LimitSet
    standings: Sequence[Standing]
    known: "Known"


class Known(Struct, frozen=True):
    """What people know a subject by: ids of keys say nothing. A key has an owner."""

    name: str
    owner: str | None = None


async def show(desk: Desk, visit: Visit) -> Answer:
    scope, wanted = visit.asked("scope"), visit.asked("q")

    def matches(subject: Subject) -> bool:
        return scope in ("", subject.kind) and holds(wanted, subject.id)

    rows, following = await desk.control.limits.page(
        limit=PER_PAGE, after=visit.asked("after") or None, matches=matches
    )
    standings = await standings_of(desk, [scope for one in rows for scope in one.scopes])
    values = {
        "rows": [Row(one, _of(one, standings or ()), await _known(desk, one.subject)) for one in rows],
        "scope": scope, "wanted": wanted,
        "kinds": KINDS, "following": following, "is_first": not visit.asked("after"),
        "can_tell": standings is not None,
    }  # fmt: skip
    return Page("operators/limits.html", values)


async def find(desk: Desk, visit: Visit) -> Answer:
    """A form that names a subject leads to its page."""
    scope, id = visit.asked("scope"), visit.asked("id")
    if scope == EVERYBODY:
        id = EVERYBODY
    try:
        subject = subject_in(scope, id)
    except (InvalidRequest, NotFound):
        return Redirect("op-limits")
    return Redirect("op-limit", {"scope": subject.kind, "id": subject.id})


async def show_one(desk: Desk, visit: Visit, error: GatewayError | None = None) -> Answer:
    subject = _subject(visit)
    found = await desk.control.limits.get(subject)
    values = {
        "subject": subject, "found": found, "known": await _known(desk, subject),
        "standings": await standings_of(desk, found.scopes),
        "names": Limits.__struct_fields__, "written": _written(visit.form, found.limits), "error": error,
    }  # fmt: skip
    return Page("operators/limit.html", values, status_of(error))


async def change(desk: Desk, visit: Visit) -> Answer:
    subject = _subject(visit)
    await ensure_may_limit(desk, visit, subject)
    try:
        await desk.control.limits.put(visit.actor, subject, limits_in(visit.form))
    except (InvalidRequest, Conflict) as error:
        return await show_one(desk, visit, error)
    return Redirect("op-limit", {"scope": subject.kind, "id": subject.id}, said="limits")


async def reset(desk: Desk, visit: Visit) -> Answer:
    """Back to what the settings say."""
    subject = _subject(visit)
    await ensure_may_limit(desk, visit, subject)
    await desk.control.limits.delete(visit.actor, subject)
    return Redirect("op-limit", {"scope": subject.kind, "id": subject.id}, said="limits")


def limits_in(form: Form) -> Limits:
    names = [name for name in Limits.__struct_fields__ if name != MONEY]
    return Limits(**{name: form.whole(name) for name in names}, cost_per_month=_micros(form.text(MONEY)))


def _micros(written: str) -> int | None:
    """Money as people write it, with a point or a comma."""
    if not written:
        return None
    whole, _, part = "".join(written.split()).replace(",", ".").partition(".")
    is_amount = whole.isascii() and whole.isdecimal() and len(whole) <= 9 and len(part) <= 6
    if not is_amount or (part and not (part.isascii() and part.isdecimal())):
        raise InvalidRequest(NO_MONEY, param=MONEY)
    return int(whole) * MICROS + int(part.ljust(6, "0"))


def _written(form: Form, limits: Limits) -> Mapping[str, str]:
    """As the form's fields hold it: what was sent and refused, else what is set."""
    if form.has(MONEY):
        return {name: form.text(name) for name in Limits.__struct_fields__}
    written = {name: "" if most is None else str(most) for name, most in structs.asdict(limits).items()}
    if limits.cost_per_month is not None:
        whole, part = divmod(limits.cost_per_month, MICROS)
        written[MONEY] = f"{whole}.{part:06}".rstrip("0").removesuffix(".")
    return written


def _subject(visit: Visit) -> Subject:
    names = visit.request.path_params
    try:
        return subject_in(names["scope"], names["id"])
    except InvalidRequest as error:
        raise NotFound(error.message) from None


async def _known(desk: Desk, subject: Subject) -> Known:
    if subject.kind != "key":
        return Known(subject.id)
    key = await desk.control.keys.get(subject.id)
    return Known(key.name, key.user)


def _of(found: LimitSet, standings: Sequence[Standing]) -> Sequence[Standing]:
    kind, id = found.subject.kind, found.subject.id
    return [one for one in standings if (one.scope.kind, one.scope.id) == (kind, id)]
