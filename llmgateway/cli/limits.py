"""`llmgateway limits`: what is set for whom, and how to change it."""

from llmgateway.cli.opened import ACTOR, Opened, all_of, opened, say_spread
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import say, say_done, say_fields, say_json, say_rows
from llmgateway.control.called import names_of
from llmgateway.control.limits import LimitSet, subject_in
from llmgateway.control.used import used_by
from llmgateway.domain.admission import Used
from llmgateway.domain.entries import BadEntry, parse_limits
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.limits import Limits
from llmgateway.domain.periods import Calendar
from llmgateway.domain.ports import SystemClock

COLUMNS = ("scope", "id", "of", "source", "limits")
CALENDAR = {"tokens_per_day": "tokens_of_day", "tokens_per_month": "tokens_of_month",
            "cost_per_month": "cost_of_month"}  # fmt: skip


async def listing(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        rows = [row_of(found) for found in await all_of(here.control.limits.page)]
        for row in rows if not arguments.as_json else ():
            row["of"] = await _of(here, row)
    say_rows(rows, COLUMNS, as_json=arguments.as_json, none="No limits are set.")
    return 0


async def _of(here: Opened, row: dict[str, object]) -> str | None:
    """What people know it by: ids of keys say nothing, those of users not always."""
    kind, id = str(row["scope"]), str(row["id"])
    if kind == "key":
        key = await here.control.keys.get(id)
        return f"'{key.name}' of {key.user}"
    if kind in ("user", "project"):
        named = await here.store.get("users" if kind == "user" else "projects", id)
        return named.get("name") if named is not None and named.get("name") != id else None
    return None


async def show(arguments: Arguments) -> int:
    subject = subject_in(arguments.scope, arguments.id or "")
    async with opened(arguments) as here:
        found = await here.control.limits.get(subject)
        period = Calendar(here.settings.time_zone).period_of(SystemClock().now())
        catalog = await here.control.models.catalog()
        known_as = here.control.comebacks.known_as
        load = used_by(here.store, lambda model: names_of(catalog, model), known_as)
        used = await load(found.scopes[0], period) if found.scopes else Used()
    rows = [
        {"limit": name, "most": most, "used": getattr(used, CALENDAR[name]) if name in CALENDAR else None}
        for name, most in described(found.effective).items()
    ]
    if arguments.as_json:
        say_json({**row_of(found), "standings": rows})
        return 0
    say_fields(row_of(found), as_json=False)
    say()
    say_rows(rows, ("limit", "most", "used"), as_json=False, none="Nothing is limited.")
    if any(row["used"] is None for row in rows):
        say("What is used of limits of a minute and of places only the running gateway knows: /admin/limits.")
    return 0


async def put(arguments: Arguments) -> int:
    first, *rest = arguments.words
    id, words = ("", arguments.words) if arguments.scope == "default" else (first, rest)
    subject, limits = subject_in(arguments.scope, id), limits_of(words)
    async with opened(arguments) as here:
        is_new = subject.kind == "user" and await here.store.get("users", subject.id) is None
        found = await here.control.limits.put(ACTOR, subject, limits)
        if is_new and not arguments.as_json:
            say(f"There was no user {subject.id} yet; now there is.")  # or the name is mistyped
        await _tell(here, found, "are set", as_json=arguments.as_json)
    return 0


async def clear(arguments: Arguments) -> int:
    subject = subject_in(arguments.scope, arguments.id or "")
    async with opened(arguments) as here:
        found = await here.control.limits.delete(ACTOR, subject)
        await _tell(here, found, "are those of the settings again", as_json=arguments.as_json)
    return 0


def limits_of(words: list[str]) -> Limits:
    """`tokens_per_day=5000 requests_per_minute=10`. Raises `InvalidRequest` with everything that is wrong."""
    if not words:
        raise InvalidRequest("Say which limits, such as tokens_per_day=5000; `limits clear` takes them away.")
    entry: dict[str, object] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidRequest(f"Write a limit as name=number, not '{word}'.")
        entry[name] = int(value) if value.isdecimal() else value
    try:
        return parse_limits(entry, "")
    except BadEntry as bad:
        raise InvalidRequest("; ".join(bad.complaints)) from None


def described(limits: Limits) -> dict[str, int]:
    names = Limits.__struct_fields__
    return {name: getattr(limits, name) for name in names if getattr(limits, name) is not None}


def row_of(found: LimitSet) -> dict[str, object]:
    subject = found.subject
    return {
        "scope": subject.kind, "id": subject.id, "source": found.source, "limits": described(found.limits),
        "effective": described(found.effective),
    }  # fmt: skip


async def _tell(here: Opened, found: LimitSet, words: str, *, as_json: bool) -> None:
    subject = found.subject
    of = "everybody" if subject.kind == "default" else f"{subject.kind} {subject.id}"
    say_done(f"The limits of {of} {words}.", row_of(found), as_json=as_json)
    await say_spread(here.state, as_json=as_json)
