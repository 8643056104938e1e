"""Every check is seen to fail."""

import asyncio
import re
import socket

import pytest

from llmgateway.cli.conform import errors
from llmgateway.cli.conform.command import CHECKS as ALL
from llmgateway.cli.conform.endings import Broken, Skipped
from llmgateway.cli.conform.errors import CHECKS
from tests.cli.conform.conftest import Suffer, behind_each
from tests.cli.conform.test_answers import no_page, swapped
from tests.cli.conform.test_asking import deployment_at, saying
from tests.lab.client import Answer
from tests.lab.exchange import Call
from tests.lab.ingress import Changed, Fault

NAMES = [name for name, _ in CHECKS]
MIB = 1024 * 1024


def busy(after: str | None) -> Fault:
    return lambda call, answer: Changed(answer)(status=503, retry_after=after)


def open_to_all(call: Call, answer: Answer) -> Answer:
    return Changed(answer)(status=200)


def tells_apart(call: Call, answer: Answer) -> Answer:
    is_told = call.header("authorization") is None
    return Changed(answer)(body=re.sub(b"Missing or invalid", b"Missing", answer.body)) if is_told else answer


def as_framework(call: Call, answer: Answer) -> Answer:
    """What frameworks say by themselves."""
    return Changed(answer)(body=b'{"detail":"Method Not Allowed"}')


async def test_pages_in_the_place_of_errors_are_found(suffer: Suffer) -> None:
    found = await suffer("errors", no_page)
    for name in NAMES:
        if name != "errors.keys-alike":
            assert found[name][0] == "failed", name
            assert "text/html" in found[name][1], name


async def test_an_ingress_with_a_small_limit_is_found(suffer: Suffer) -> None:
    found = await suffer("errors.large-body,errors.too-large", lambda _, answer: answer, most=MIB)
    for result, told in found.values():
        assert result == "failed"
        assert "came 413 text/html" in told


FAULTS: list[tuple[str, str, Fault, str]] = [
    ("errors.no-key", "failed", open_to_all, "expected 401; came 200"),
    ("errors.wrong-key", "failed", open_to_all, "expected 401, with no key"),
    ("errors.no-key", "differs", swapped(b'"invalid_api_key"', b"null"), "the code invalid_api_key"),
    ("errors.wrong-key", "differs", swapped(b'"invalid_api_key"', b"null"), "the code invalid_api_key"),
    ("errors.keys-alike", "differs", tells_apart, "expected the same answer to"),
    ("errors.wrong-type", "differs", swapped(b'"param":"model"', b'"param":null'), "came None"),
    ("errors.method", "failed", as_framework, "missing required field `error`"),
    ("errors.method", "differs", lambda _, answer: Changed(answer)(status=404), "expected 405; came 404"),
    ("errors.too-large", "failed", swapped(b'"type":"[a-z_]*",', b""), "missing required field `type`"),
    ("errors.come-again", "failed", busy(None), "expected retry-after or x-should-retry"),
    ("errors.come-again", "differs", busy("3600"), "came 3600"),
    ("errors.come-again", "ok", busy("2"), "on 1"),
]  # fmt: skip


@behind_each(FAULTS)
async def test_what_is_wrong_is_found(
    suffer: Suffer, check: str, result: str, fault: Fault, told: str
) -> None:
    found, said = (await suffer(check, fault))[check]
    assert found == result
    assert told in said


def test_all_checks_of_errors_are_among_all() -> None:
    assert {*NAMES, "errors.come-again"} == {name for name, _ in ALL if name.startswith("errors.")}


async def test_a_body_that_is_waited_for_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Skipped, match="body has come"):
        await asyncio.to_thread(errors.too_large, deployment_at(silent.getsockname()[1]))


async def test_a_connection_that_is_only_closed_is_one() -> None:
    async with saying(b"") as port:
        with pytest.raises(Broken):
            await asyncio.to_thread(errors.too_large, deployment_at(port))
