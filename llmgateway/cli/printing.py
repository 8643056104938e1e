"""What commands print: tables for people, JSON for programs."""

import sys
from collections.abc import Mapping, Sequence
from getpass import getpass
from typing import Any

import msgspec

from llmgateway.domain.errors import InvalidRequest

Row = Mapping[str, Any]


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    sys.stderr.write(f"llmgateway: {text}\n")


def asked(question: str) -> str:
    """A line of the one who sits there; empty where nobody does. The question is no output."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def first_line(question: str = "Password: ") -> str:
    """Of the input, with all its spaces; what is typed at a terminal does not show."""
    if sys.stdin.isatty():
        return getpass(question)
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidRequest("The input is not UTF-8.") from None


def say_json(value: object) -> None:
    say(msgspec.json.format(msgspec.json.encode(value, enc_hook=int), indent=2).decode())


def say_done(words: str, value: object, *, as_json: bool) -> None:
    """What was done: in words for people, as what is there now for programs."""
    if as_json:
        say_json(value)
    else:
        say(words)


def say_rows(
    rows: Sequence[Row], columns: Sequence[str], *, as_json: bool, none: str = "There are none."
) -> None:
    """All fields as JSON, in the shape of the API's lists; of a table the columns that are named."""
    if as_json:
        say_json({"data": rows, "next": None})
    elif rows:
        say(table(rows, columns))
    else:
        say(none)


def say_fields(fields: Row, *, as_json: bool) -> None:
    """One thing: a line for each of its fields."""
    if as_json:
        say_json(fields)
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        say(f"{name.ljust(width)}  {shown(value)}")


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    cells = [[shown(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    is_number = [all(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    lines = [[column.replace("_", " ") for column in columns], *cells]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in lines
    )


def counted(n: int, one: str, many: str = "") -> str:
    """`1 line`, `2 lines`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(one)}" for name, one in value.items() if one is not None) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "-"
    return str(value)
