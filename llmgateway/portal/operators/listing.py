"""Lists that are searched: a store finds by equality only, so more is looked for here, page by page."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

BATCH = 1000
PER_PAGE = 50


class Named(Protocol):
    @property
    def id(self) -> str: ...


N = TypeVar("N", bound=Named)
Batches = Callable[[int, str | None], Awaitable[tuple[Sequence[N], str | None]]]


async def found(
    batches: Batches[N], matches: Callable[[N], bool], after: str | None, limit: int = PER_PAGE
) -> tuple[list[N], str | None]:
    """One page of what matches, by id, and the cursor of the next."""
    listed: list[N] = []
    while True:
        batch, following = await batches(BATCH, after)
        for one in batch:
            if not matches(one):
                continue
            if len(listed) == limit:
                return listed, listed[-1].id
            listed.append(one)
        if following is None:
            return listed, None
        after = following


def holds(wanted: str, *texts: str | None) -> bool:
    """Whether every word is somewhere in the texts."""
    together = "\n".join(text for text in texts if text).casefold()
    return all(word in together for word in wanted.casefold().split())
