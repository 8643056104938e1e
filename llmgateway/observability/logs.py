"""Logs: one line an event, as JSON or for a terminal; one line for every call. No prompt, no answer, no key.

Modules pass fields as `extra={"fields": {...}}`; only names of the list below are written, so nothing gets
into a log because somebody forgot to take it out.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal

import msgspec
from msgspec import Struct
from typing_extensions import override

from llmgateway.domain.call import Record

Format = Literal["console", "json"]

FIELDS = frozenset({
    "action", "certificate", "complaints", "continuous_usage", "days", "error", "failures", "field", "hash",
    "id", "ids", "kind", "limit", "model", "models", "part", "path", "phase", "place", "provider", "reason",
    "records", "replica", "request_id", "result", "seconds", "settings", "source", "status", "store",
    "target", "topic", "value", "version", "who", "worker",
})  # fmt: skip
TALKATIVE = ("uvicorn.error", "pymongo", "asyncio")  # they tell of their inside
LONGEST = 500  # characters of a value
SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "gunicorn.error", "gunicorn.access")
AT_ONCE = 128  # calls whose lines are written together, if there are as many before the next flush

_encode = msgspec.json.Encoder().encode


def configure(level: str, format: Format | None) -> Format:  # noqa: A002 - the setting's name
    """Routes everything that is logged in this process to standard error; returns the format that is used."""
    used: Format = format or ("console" if sys.stderr.isatty() else "json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if used == "json" else Console())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in SERVERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    if level != "debug":
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    return used


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _moment(record.created), "level": record.levelname.lower(), "logger": record.name,
            "message": record.getMessage(), **fields_of(record),
        }  # fmt: skip
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = _trace_of(record.exc_info[1])
        return _encode(line).decode()


class Console(logging.Formatter):
    """For people: time, level where it is no news, message, fields."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        words = [datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")]
        if record.levelno != logging.INFO:
            words.append(record.levelname.lower())
        words.append(record.getMessage())
        words += [f"{name}={value}" for name, value in fields_of(record).items()]
        line = visible(" ".join(words))
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + _trace_of(record.exc_info[1])
        return line


def visible(text: str) -> str:
    """What others wrote must neither begin a line of its own nor steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields that may be written; of others the name is, so that the list can be mended."""
    given: Mapping[str, Any] = getattr(record, "fields", {})
    known = {name: _plain(value) for name, value in given.items() if name in FIELDS}
    unknown = sorted(set(given) - FIELDS)
    return known | ({"left_out": unknown} if unknown else {})


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value[:100]]
    return str(value)[:LONGEST]


def _trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- calls ---


class CallLine(Struct, frozen=True):
    """What the log says of a call: its record without the nesting."""

    time: datetime | None
    level: str
    message: str
    id: str
    request_id: str
    user: str
    key_id: str
    endpoint: str
    model: str
    replica: str | None
    stream: bool
    status: int
    outcome: str | None
    duration_ms: int
    ttft_ms: int | None
    overhead_us: int
    prompt: int
    completion: int
    usage_source: str
    cost: int
    attempts: int


def json_line(record: Record) -> bytes:
    tokens, target = record.tokens, record.target
    line = CallLine(
        record.ended_at, "info", "call", record.id, record.request_id, record.user, record.key_id,
        record.endpoint, record.model, target.replica if target else None, record.stream, record.status,
        record.outcome, record.duration_ms, record.ttft_ms, record.overhead_us, tokens.prompt,
        tokens.completion, record.usage_source, record.cost, len(record.attempts),
    )  # fmt: skip
    return _encode(line) + b"\n"


def console_line(record: Record) -> bytes:
    at = record.ended_at.astimezone().strftime("%H:%M:%S") if record.ended_at else "--:--:--"
    tokens = f"{record.tokens.prompt}+{record.tokens.completion} tokens"
    ttft = f", first byte after {record.ttft_ms} ms" if record.ttft_ms is not None else ""
    return (
        f"{at} {record.status} {record.outcome} {record.endpoint} {record.model} for {record.user}: "
        f"{tokens} in {record.duration_ms} ms{ttft} id={record.id}\n"
    ).encode()


class CallLog:
    """A sink of closed records. It writes now and then, not at every call: in a row, lines cost half."""

    def __init__(self, stream: BinaryIO, line: Callable[[Record], bytes]) -> None:
        self._stream = stream
        self._line = line
        self._waiting: list[Record] = []

    def __call__(self, record: Record) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        records, self._waiting = self._waiting, []
        if records:
            self._stream.write(b"".join(map(self._line, records)))
            self._stream.flush()
