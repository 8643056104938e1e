"""The file's `retention` and `key_expiry_warning`: how long what is kept, in days."""

import re
from collections.abc import Callable

from msgspec import structs

from llmgateway.domain.fields import Fields
from llmgateway.domain.scalars import Wrong, described
from llmgateway.domain.upkeep import Retention

FOREVER = "forever"
WARNING = 14  # days before a key expires
MONTH = 35  # days; sums of a whole month are what budgets begin with
LEAST = {"records": 7, "hourly": MONTH, "daily": MONTH, "audit": 30}
MOST = 36_500


def read_retention(fields: Fields) -> Retention:
    default = structs.asdict(Retention())
    kept = {name: fields.take(name, _days_or_forever(LEAST[name]), default[name]) for name in default}
    fields.done()
    return Retention(**kept)


def retention_entry(kept: Retention) -> dict[str, str]:
    """As it would be written."""
    return {name: FOREVER if days is None else f"{days}d" for name, days in structs.asdict(kept).items()}


def days(value: object) -> int:
    """0 for no days at all."""
    return _days(value, 0)


def _days_or_forever(least: int) -> Callable[[object], int | None]:
    return lambda value: None if value == FOREVER else _days(value, least, f", or {FOREVER}")


def _days(value: object, least: int, otherwise: str = "") -> int:
    found = re.fullmatch(r"(\d{1,5})d", value) if isinstance(value, str) else None
    if found is None or not least <= int(found[1]) <= MOST:
        example = max(least, WARNING)
        raise Wrong(f"must be days such as {example}d, at least {least}d{otherwise}, not {described(value)}")
    return int(found[1])
