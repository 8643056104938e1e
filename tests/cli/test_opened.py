from pathlib import Path

import pytest

from llmgateway.cli.commands import parser
from llmgateway.cli.opened import ACTOR, PAGE, all_of, opened, say_spread
from llmgateway.control.changes import announce
from llmgateway.domain.ports import Change
from llmgateway.stores.memory import MemoryState
from llmgateway.stores.redis import open_redis


async def test_a_command_works_on_the_stores_of_the_settings(tmp_path: Path) -> None:
    arguments = parser().parse_args(["keys", "list", "--data-dir", str(tmp_path)])
    async with opened(arguments) as here:
        assert here.store.name == "sqlite"
        await here.control.people.ensure(ACTOR, "alice")
    async with opened(arguments) as here:
        assert [user.id for user in await all_of(here.control.people.page, {})] == ["alice"]


async def test_all_pages_are_read() -> None:
    numbers = list(range(2 * PAGE + 1))

    async def page(*, limit: int, after: str | None) -> tuple[list[int], str | None]:
        start = int(after or 0)
        end = start + limit
        return numbers[start:end], str(end) if end < len(numbers) else None

    assert await all_of(page) == numbers


@pytest.mark.parametrize("as_json", [False, True])
async def test_what_nobody_could_be_told_is_said(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    """And not that everybody knows. What programs read has neither."""
    await say_spread(MemoryState(), as_json=as_json)
    assert capsys.readouterr() == ("" if as_json else "Every worker knows within a second.\n", "")
    async with open_redis("redis://127.0.0.1:1/0", 0.2) as away:
        await announce(away, [Change("keys", "k1")])
        await say_spread(away, as_json=as_json, patience=0.1)
    said, complaint = capsys.readouterr()
    assert said == ""
    assert "could not be told" in complaint
    assert "5 minutes" in complaint
