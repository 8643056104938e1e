"""`llmgateway usage` and `llmgateway audit`: who used what, and is the log of changes whole."""

from typing import Any

from llmgateway.cli.opened import opened
from llmgateway.cli.options import Arguments
from llmgateway.cli.printing import counted, say, say_fields, say_rows
from llmgateway.control.reports import UsageAsk, csv_of, usage_view
from llmgateway.domain.errors import InvalidRequest

SUMS = ("requests", "prompt", "completion", "cached", "reasoning", "total", "cost")


async def usage(arguments: Arguments) -> int:
    if arguments.as_csv and arguments.as_json:
        raise InvalidRequest("Choose one of --csv and --json.")
    ask = UsageAsk(start=arguments.start, end=arguments.end, by=arguments.by, tz=arguments.tz)
    async with opened(arguments) as here:
        report = await here.control.reports.usage(ask)
        currency = here.settings.currency
    if arguments.as_csv:
        say(csv_of(report).rstrip())
        return 0
    rows: list[dict[str, Any]] = [usage_view(row) for row in report.rows]
    if not arguments.as_json:
        rows = [{**row, **row["tokens"], "cost": money(row["cost"], currency)} for row in rows]
    say_rows(rows, [*report.by, *SUMS], as_json=arguments.as_json, none="Nothing was used in that time.")
    return 0


def money(micro_units: int, currency: str) -> str:
    """Exact, with at least two decimals."""
    units, rest = divmod(micro_units, 1_000_000)
    return f"{units:,}.{f'{rest:06}'.rstrip('0').ljust(2, '0')} {currency}"


async def verify_audit(arguments: Arguments) -> int:
    async with opened(arguments) as here:
        verdict = await here.control.audit.verify()
    found = {"lines": verdict.lines, "head": verdict.head, "bad": verdict.bad, "reason": verdict.reason}
    if arguments.as_json:
        say_fields(found, as_json=True)
    elif verdict.bad is None:
        say(f"The audit log is whole: {counted(verdict.lines, 'line')}, head {verdict.head}")
    else:
        say(f"The audit log is broken at line {verdict.bad}: {verdict.reason}.")
        say(f"Before it {counted(verdict.lines, 'line')} can be trusted.")
    return 0 if verdict.bad is None else 1
