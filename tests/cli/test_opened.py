from pathlib import Path

from llmgateway.cli.commands import parser
from llmgateway.cli.opened import ACTOR, PAGE, all_of, opened


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
