"""Every check is seen to fail."""

import re

import pytest

from llmgateway.cli.conform.answers import CHECKS
from tests.cli.conform.conftest import Suffer
from tests.lab.client import Answer
from tests.lab.exchange import Call
from tests.lab.ingress import Changed, Fault, page


def swapped(old: bytes, new: bytes) -> Fault:
    return lambda call, answer: Changed(answer)(body=re.sub(old, new, answer.body))


def no_page(call: Call, answer: Answer) -> Answer:
    return page(answer.status, "an answer")


FAULTS: list[tuple[str, Fault, str]] = [
    ("models.list", swapped(rb'"data":\[.*\]', b'"data":[]'), "an empty list"),
    ("models.list", swapped(rb'"created":\d+,', b""), "missing required field `created`"),
    ("models.retrieve", swapped(b'"id":"plain"', b'"id":"other"'), "expected the model plain; came other"),
    ("models.unknown", no_page, "came 404 text/html"),
    ("chat.answer", swapped(b'"finish_reason":"stop"', b'"finish_reason":"ended"'), "ended"),
    ("chat.answer", no_page, "expected application/json; came 200 text/html"),
    ("chat.answer", lambda call, answer: None, "expected a whole answer"),
    ("chat.usage", swapped(b'"usage":', b'"used":'), "expected usage; came none"),
    ("chat.usage", swapped(b'"total_tokens":', b'"total_tokens":1'), "and their sum"),
    ("embeddings.list", swapped(rb'"embedding":\[.*?\]', b'"embedding":[]'), "a list of numbers"),
    ("embeddings.base64", swapped(rb'"embedding":"[^"]*"', b'"embedding":"AAAA"'), "of four bytes as base64"),
    ("embeddings.base64", swapped(rb'"embedding":"[^"]*"', b'"embedding":[0.5]'), "came a list"),
    ("embeddings.base64", swapped(rb'"embedding":"....', b'"embedding":"AAAA'), "the same numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "fault", "told"), FAULTS, ids=[f"{one[0]} {one[2]}" for one in FAULTS])
async def test_what_is_wrong_is_found(suffer: Suffer, check: str, fault: Fault, told: str) -> None:
    result, said = (await suffer(check, fault))[check]
    assert result == "failed"
    assert told in said


def test_every_check_is_seen_to_fail() -> None:
    assert {check for check, _, _ in FAULTS} == {name for name, _ in CHECKS}


async def test_a_code_of_its_own_only_differs(suffer: Suffer) -> None:
    fault = swapped(b'"code":"model_not_found"', b'"code":404')
    assert (await suffer("models.unknown", fault))["models.unknown"][0] == "differs"


async def test_a_model_without_embeddings_is_not_asked_twice(suffer: Suffer) -> None:
    def refuse(call: Call, answer: Answer) -> Answer:
        body = b'{"error":{"message":"No.","type":"invalid_request_error","param":null,"code":null}}'
        return Changed(answer)(status=404, body=body)

    found = await suffer("embeddings", refuse)
    assert set(found.values()) == {("skipped", "the model plain gives none")}
