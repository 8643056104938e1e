"""`llmgateway keys`: API keys, made, listed, revoked, rotated."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import structs

from llmgateway.cli.limits import limits_of
from llmgateway.cli.opened import ACTOR, Opened, all_of, opened, say_spread
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import Row, say, say_done, say_fields, say_json, say_rows
from llmgateway.control.keys import OVERLAP, Issued, NewKey, key_view
from llmgateway.control.moments import parse_moment, parse_zone
from llmgateway.control.projects import NewServiceKey
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.ports import SystemClock

SPAN = re.compile(r"(\d{1,6})([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
COLUMNS = ("id", "user", "name", "state", "models", "project", "limits", "created_at", "expires_at", "hint")


async def create(arguments: Arguments) -> int:
    """Without a user it is the project's own."""
    if not arguments.user and not arguments.project:
        raise InvalidRequest("Say whose key it is: --user, or --project for one that belongs to no person.")
    async with opened(arguments) as here:
        models = arguments.models.split(",") if arguments.models else None
        expires = None
        if arguments.expires:
            expires = moment_in(arguments.expires, here.settings.time_zone, SystemClock.now())
        service = NewServiceKey(
            name=arguments.name,
            models=[name.strip() for name in models] if models else None,
            expires_at=expires,
            limits=limits_of(arguments.limits) if arguments.limits else None,
        )
        tell(await _made(arguments, here, service), as_json=arguments.as_json)
    return 0


async def _made(arguments: Arguments, here: Opened, key: NewServiceKey) -> Issued:
    if not arguments.user:
        return await here.control.projects.create_key(ACTOR, arguments.project, key)
    fields = structs.asdict(key)
    return await here.control.keys.create(
        ACTOR, NewKey(user=arguments.user, project=arguments.project, **fields)
    )


async def listing(arguments: Arguments) -> int:
    where = {"user": arguments.user, "state": arguments.state}
    given = {name: value for name, value in where.items() if value is not None}
    async with opened(arguments) as here:
        rows = [key_view(key) for key in await all_of(here.control.keys.page, given)]
    say_keys(rows, as_json=arguments.as_json, none="There are no keys; make one with: llmgateway keys create")
    return 0


async def revoke(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        key = await here.control.keys.revoke(ACTOR, arguments.id)
        words = f"The key {key.id} ('{key.name}' of {key.user}) is revoked."
        say_done(words, key_view(key), as_json=arguments.as_json)
        await say_spread(here.state, as_json=arguments.as_json)
    return 0


async def rotate(arguments: Arguments) -> int:
    overlap = OVERLAP if arguments.overlap is None else span_in(arguments.overlap, "overlap")
    async with opened(arguments) as here:
        issued = await here.control.keys.rotate(ACTOR, arguments.id, overlap)
    tell(issued, as_json=arguments.as_json)
    return 0


def say_keys(rows: Sequence[Row], columns: Sequence[str] = COLUMNS, *, as_json: bool, none: str) -> None:
    """A key that names no models has all of them, which a dash would not say."""
    told = rows if as_json else [{**row, "models": row["models"] or "all"} for row in rows]
    say_rows(told, columns, as_json=as_json, none=none)


def tell(issued: Issued, *, as_json: bool) -> None:
    view = key_view(issued.key)
    if as_json:
        say_json({**view, "key": issued.token.reveal()})
        return
    say_fields({name: view[name] for name in COLUMNS if name != "hint" and view[name]}, as_json=False)
    if view["previous_until"]:
        say(f"The key before is valid until {view['previous_until']}.")
    say(f"\n{issued.token.reveal()}\n\nThis is the key. It is shown this once; keep it well.")


def moment_in(text: str, zone: str, now: datetime, param: str = "expires") -> datetime:
    """`90d` from now, or a date or time."""
    if SPAN.fullmatch(text):
        return now + span_in(text, param)
    if text.isdecimal():
        message = f"--{param} takes a span such as 90d or 12h, or a date, not '{text}'."
        raise InvalidRequest(message, param=param)
    return parse_moment(text, parse_zone(zone, "time_zone"), param)


def span_in(text: str, param: str) -> timedelta:
    parts = SPAN.fullmatch(text)
    if parts is None:
        raise InvalidRequest(f"--{param} takes a span such as 90d, 12h or 30m, not '{text}'.", param=param)
    return timedelta(seconds=int(parts[1]) * SECONDS[parts[2]])
