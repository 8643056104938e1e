"""One model's use under all of its names: the ledger has each call as it was asked, by id or by alias."""

from collections.abc import Iterable, Sequence

from msgspec import structs

from llmgateway.domain.catalog import Catalog
from llmgateway.domain.ports import UsageRow

SUMMED = tuple(name for name in UsageRow.__struct_fields__ if name != "group")
Group = tuple[str | None, ...]


def names_of(catalog: Catalog, name: str) -> tuple[str, ...]:
    """Of a model's id its aliases too; an alias, and what nobody knows any more, is itself alone."""
    model = catalog.find(name)
    if model is None or model.id != name:
        return (name,)
    return (name, *(alias for alias in model.aliases if catalog.find(alias) is model))


def under_their_ids(rows: Iterable[UsageRow], catalog: Catalog) -> list[UsageRow]:
    """Rows that differ in a model's name only become one, in the order of all rows."""
    found: dict[Group, UsageRow] = {}
    for row in rows:
        model = catalog.find(row.group.get("model") or "")
        group = {**row.group, "model": model.id} if model is not None else row.group
        place = tuple(group.values())
        before = found.get(place)
        sums = {} if before is None else {name: getattr(before, name) + getattr(row, name) for name in SUMMED}
        found[place] = structs.replace(row, group=group, **sums)
    return [found[place] for place in sorted(found, key=in_order)]


def in_order(group: Sequence[str | None]) -> list[tuple[bool, str]]:
    """Where a group stands among rows: None first."""
    return [(value is not None, value or "") for value in group]
