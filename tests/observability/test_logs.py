import io
import json
import logging
import random
from collections.abc import Iterator

import pytest

from llmgateway.domain.secret import Secret
from llmgateway.observability.logs import (
    AT_ONCE,
    CallLog,
    Console,
    JsonLines,
    configure,
    console_line,
    fields_of,
    json_line,
)
from tests.stores.samples import record

RECORD = record(random.Random(1), request_id="r-1", user="alice", outcome="completed")


def event(message: str = "it %s", *values: object, **fields: object) -> logging.LogRecord:
    one = logging.LogRecord(
        "llmgateway.x", logging.WARNING, __file__, 1, message, values or ("happened",), None
    )
    one.fields = fields
    return one


@pytest.fixture
def restored() -> Iterator[None]:
    """What a test does to the logging of this process is undone."""
    loggers = [
        logging.getLogger(name) for name in ("", "uvicorn.error", "gunicorn.error", "pymongo", "asyncio")
    ]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_a_json_line_holds_message_and_fields() -> None:
    line = json.loads(JsonLines().format(event(reason="away", records=3)))
    assert line["message"] == "it happened"
    assert (line["level"], line["logger"], line["reason"], line["records"]) == (
        "warning",
        "llmgateway.x",
        "away",
        3,
    )
    assert line["time"].endswith("Z")


def test_on_a_terminal_nobody_writes_lines_or_commands_of_their_own() -> None:
    line = Console().format(
        event("it %s", "was\n12:00:00 all is well", reason="\x1b[2J\u202egone", who="Äijä")
    )
    assert "\n" not in line
    assert "\x1b" not in line
    assert "was\\n12:00:00" in line
    assert "reason=\\x1b[2J\\u202egone who=Äijä" in line


def test_only_listed_fields_are_written() -> None:
    found = fields_of(event(prompt="my secret thoughts", reason="x"))
    assert found == {"reason": "x", "left_out": ["prompt"]}


def test_values_are_short_and_secrets_masked() -> None:
    found = fields_of(event(reason="x" * 10_000, target=Secret("hidden"), ids=["a", Secret("b")]))
    assert len(found["reason"]) == 500
    assert found["target"] == "***"
    assert found["ids"] == ["a", "***"]


def test_a_console_line_is_for_people() -> None:
    assert Console().format(event(reason="away")).endswith("warning it happened reason=away")


@pytest.mark.parametrize("formatter", [JsonLines(), Console()])
def test_a_traceback_is_told(formatter: logging.Formatter) -> None:
    one = event()
    error = RuntimeError("broken")
    one.exc_info = (RuntimeError, error, None)
    assert "RuntimeError: broken" in formatter.format(one)


@pytest.mark.usefixtures("restored")
def test_servers_are_routed_in(capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("gunicorn.error").addHandler(logging.NullHandler())
    assert configure("info", "json") == "json"
    logging.getLogger("gunicorn.error").error("from gunicorn")
    logging.getLogger("uvicorn.error").info("too much")
    logging.getLogger("llmgateway").debug("too little")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["from gunicorn"]


def test_a_call_is_one_line() -> None:
    line = json.loads(json_line(RECORD))
    assert (line["message"], line["request_id"], line["user"], line["outcome"]) == (
        "call",
        "r-1",
        "alice",
        "completed",
    )
    assert line["prompt"] == RECORD.tokens.prompt
    assert b"alice" in console_line(RECORD)
    assert console_line(RECORD).count(b"\n") == json_line(RECORD).count(b"\n") == 1


def test_calls_are_written_when_it_is_time_or_when_they_are_many() -> None:
    stream = io.BytesIO()
    log = CallLog(stream, json_line)
    log(RECORD)
    assert stream.getvalue() == b""
    log.flush()
    assert stream.getvalue().count(b"\n") == 1
    for _ in range(AT_ONCE):
        log(RECORD)
    assert stream.getvalue().count(b"\n") > 1
