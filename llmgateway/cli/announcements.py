"""`llmgateway announcements`: what stands at the head of every page of the portal."""

from datetime import datetime
from typing import Any

from msgspec import UNSET

from llmgateway.cli.keys import moment_in
from llmgateway.cli.opened import ACTOR, Opened, all_of, opened
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import say, say_done, say_fields, say_rows
from llmgateway.control.announcements import (
    Announcement,
    AnnouncementChanges,
    NewAnnouncement,
    announcement_view,
)
from llmgateway.domain.errors import InvalidRequest
from llmgateway.domain.ports import SystemClock

COLUMNS = ("id", "level", "state", "starts_at", "ends_at", "text")
NEVER = "never"


async def listing(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        rows = [_view(one) for one in await all_of(here.control.announcements.page)]
    none = "There are no announcements; make one with: llmgateway announcements create"
    say_rows(rows, COLUMNS, as_json=arguments.as_json, none=none)
    return 0


async def show(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        say_fields(_view(await here.control.announcements.get(arguments.id)), as_json=arguments.as_json)
    return 0


async def create(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        new = NewAnnouncement(
            text=arguments.text, level=arguments.level or "info",
            starts_at=_moment(arguments.starts, here, "starts"),
            ends_at=_moment(arguments.ends, here, "ends"),
        )  # fmt: skip
        return _tell(await here.control.announcements.create(ACTOR, new), arguments)


async def change(arguments: Arguments) -> int:
    """Only what is named."""
    if all(value is None for value in (arguments.text, arguments.level, arguments.starts, arguments.ends)):
        raise InvalidRequest("Say what to change: --text, --level, --starts or --ends.")
    async with opened(arguments) as here:
        starts = _moment(arguments.starts, here, "starts")
        changes = AnnouncementChanges(
            text=UNSET if arguments.text is None else arguments.text,
            level=UNSET if arguments.level is None else arguments.level,
            starts_at=UNSET if starts is None else starts,
            ends_at=UNSET if arguments.ends is None else _moment(arguments.ends, here, "ends"),
        )
        return _tell(await here.control.announcements.change(ACTOR, arguments.id, changes), arguments)


async def end(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        return _tell(await here.control.announcements.end(ACTOR, arguments.id), arguments)


async def delete(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        await here.control.announcements.delete(ACTOR, arguments.id)
    words = f"The announcement {arguments.id} is deleted."
    say_done(words, {"id": arguments.id, "deleted": True}, as_json=arguments.as_json)
    return 0


def _moment(text: str | None, here: Opened, param: str) -> datetime | None:
    if text is None or text == NEVER:
        return None
    return moment_in(text, here.settings.time_zone, SystemClock.now(), param)


def _view(one: Announcement) -> dict[str, Any]:
    return announcement_view(one, SystemClock.now())


def _tell(one: Announcement, arguments: Arguments) -> int:
    view = _view(one)
    say_fields(view, as_json=arguments.as_json)
    if not arguments.as_json:
        words = {
            "planned": f"It will stand at the head of every page from {view['starts_at']} on.",
            "shown": "It stands at the head of every page now.",
            "over": "It is not shown any more.",
        }
        say(f"\n{words[view['state']]}")
    return 0
