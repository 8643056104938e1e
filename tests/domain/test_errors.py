"""The tree of errors: stable codes, and a client's words made fit to be shown."""

from collections.abc import Iterator

import pytest

from llmgateway.domain import errors
from llmgateway.domain.errors import GatewayError, shown

TYPES = (
    "server_error", "invalid_request_error", "permission_error", "requests", "tokens", "insufficient_quota",
)  # fmt: skip


def family(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:  # tests and drivers have errors of their own
            yield from family(child)


@pytest.mark.parametrize("kind", list(family(GatewayError)), ids=lambda kind: kind.__name__)
def test_each_kind_has_a_code_and_is_drawn(kind: type[GatewayError]) -> None:
    assert kind.code.replace("_", "").isalpha()
    assert kind.code == kind.code.lower()
    assert kind.type in TYPES
    assert kind.__name__ in (errors.__doc__ or "")


def test_a_client_s_words_are_made_fit_to_be_shown() -> None:
    assert shown("gpt-4") == "gpt-4"
    assert shown("a\r\nset-cookie: x\x00\u202eé") == "a??set-cookie: x???"
    assert shown("x" * 5000) == "x" * 100 + "..."


def test_messages_hold_no_more_than_the_client_s_own_word() -> None:
    error = errors.NoSuchModel("../../admin\n")
    assert error.message == "The model '../../admin?' does not exist or you do not have access to it."
    assert (error.code, error.param) == ("model_not_found", "model")
    assert errors.UpstreamTimeout("first_byte", 120).message.endswith("(first byte: 120 s).")
