"""What a scope has used in a period, by the ledger: where a limiter begins to count."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType

from llmgateway.domain.admission import LoadUsed, Used
from llmgateway.domain.limits import Scope, ScopeKind
from llmgateway.domain.periods import Period
from llmgateway.domain.ports import Ledger, UsageQuery

FIELDS: Mapping[ScopeKind, str] = MappingProxyType(
    {"user": "user", "project": "project", "key": "key_id", "model": "model"}
)

NamesOf = Callable[[str], Iterable[str]]


def used_by(ledger: Ledger, names_of: NamesOf) -> LoadUsed:
    """`names_of` gives all names that a model is asked by: the ledger has them as they were asked."""

    async def sums(scope: Scope, start: datetime, end: datetime) -> tuple[int, int]:
        names = set(names_of(scope.id)) if scope.kind == "model" else {scope.id}
        wheres = [{FIELDS[scope.kind]: name} for name in sorted(names)]
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
