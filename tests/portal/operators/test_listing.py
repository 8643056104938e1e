"""Lists that are searched: pages without gaps, whatever matches."""

from collections.abc import Sequence

from msgspec import Struct

from llmgateway.portal.operators.listing import found, holds


class One(Struct):
    id: str


ALL = [One(f"{n:04}") for n in range(2500)]


async def batches(limit: int, after: str | None) -> tuple[Sequence[One], str | None]:
    rest = [one for one in ALL if after is None or one.id > after]
    return rest[:limit], rest[limit - 1].id if len(rest) > limit else None


async def test_pages_hold_everything_once() -> None:
    seen: list[str] = []
    after: str | None = None
    while True:
        page, after = await found(batches, lambda one: one.id.endswith("7"), after, 30)
        assert len(page) <= 30
        seen += [one.id for one in page]
        if after is None:
            break
    assert seen == [one.id for one in ALL if one.id.endswith("7")]
    assert await found(batches, lambda one: False, None) == ([], None)


def test_every_word_must_be_somewhere() -> None:
    assert holds("", None)
    assert holds("aino EXAMPLE", "aino.korhonen", None, "a@example.edu")
    assert not holds("aino other", "aino.korhonen")
