"""What a scope has used in a period, by the ledger: where a limiter begins to count."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from llmgateway.domain.admission import LoadUsed, ScopeKey, Used
from llmgateway.domain.limits import Scope, ScopeKind
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Ledger, UsageQuery

FIELDS: Mapping[ScopeKind, str] = MappingProxyType(
    {"user": "user", "project": "project", "key": "key_id", "model": "model"}
)

NamesOf = Callable[[str], Iterable[str]]
KnownAs = Callable[[Collection[str]], Awaitable[Mapping[str, Iterable[str]]]]


async def nobody_else(user_ids: Collection[str]) -> Mapping[str, Iterable[str]]:
    return {}


def used_by(ledger: Ledger, names_of: NamesOf, known_as: KnownAs = nobody_else) -> LoadUsed:
    """`names_of` gives all names that a model is asked by: the ledger has them as they were asked. `known_as`
    gives the pseudonyms that have what users used before they came back."""

    async def sums(scope: Scope, start: datetime, end: datetime) -> tuple[int, int]:
        names = await _names(scope.kind, [scope.id], names_of, known_as)
        wheres = [{FIELDS[scope.kind]: name} for name in sorted(names[scope.id])]
        found = await asyncio.gather(
            *(ledger.usage(UsageQuery(start=start, end=end, where=where)) for where in wheres)
        )
        rows = [row for rows in found for row in rows]
        return sum(row.prompt + row.completion for row in rows), sum(row.cost for row in rows)

    async def load(scope: Scope, period: Period) -> Used:
        (day, _), (month, cost) = await asyncio.gather(
            sums(scope, period.day_start, period.day_end), sums(scope, period.month_start, period.month_end)
        )
        return Used(day, month, cost)

    return load


def used_by_all(
    ledger: Ledger, names_of: NamesOf, known_as: KnownAs = nobody_else
) -> Callable[[Period, Collection[ScopeKey]], Awaitable[Mapping[ScopeKey, Used]]]:
    """As `used_by`, for many scopes at once: one question for each kind of them."""

    async def sums(kind: ScopeKind, start: datetime, end: datetime) -> dict[str, tuple[int, int]]:
        rows = await ledger.usage(UsageQuery(start=start, end=end, by=(kind,)))
        return {str(row.group[kind]): (row.prompt + row.completion, row.cost) for row in rows}

    async def load(period: Period, keys: Collection[ScopeKey]) -> Mapping[ScopeKey, Used]:
        found: dict[ScopeKey, Used] = {}
        for kind in sorted({kind for kind, _ in keys}):
            days = await sums(kind, period.day_start, period.day_end)
            months = await sums(kind, period.month_start, period.month_end)
            ids = [id for of, id in keys if of == kind]
            for id, names in (await _names(kind, ids, names_of, known_as)).items():
                of_month = [months[name] for name in names if name in months]
                found[kind, id] = Used(
                    sum(days[name][0] for name in names if name in days),
                    sum(tokens for tokens, _ in of_month), sum(cost for _, cost in of_month),
                )  # fmt: skip
        return found

    return load


async def _names(
    kind: ScopeKind, ids: Collection[str], names_of: NamesOf, known_as: KnownAs
) -> Mapping[str, set[str]]:
    if kind == "model":
        return {id: set(names_of(id)) for id in ids}
    others = await known_as(ids) if kind == "user" else {}
    return {id: {id, *others.get(id, ())} for id in ids}
