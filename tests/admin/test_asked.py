"""Strict reading of bodies and queries, and the words of its complaints."""

from collections.abc import MutableMapping
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct
from starlette.requests import Request

from llmgateway.admin.asked import asked_by_body, asked_by_query
from llmgateway.domain.errors import ClientGone, InvalidRequest


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 0


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    limit: Annotated[int, Meta(ge=1)] = 1
    inner: Inner = Inner()


def request(query: bytes = b"", body: bytes = b"", *, ends: bool = True) -> Request:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": not ends},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "query_string": query, "headers": []}, receive)


def test_a_query_is_read_by_its_types() -> None:
    assert asked_by_query(Asked, request(b"name=5&limit=3")) == Asked("5", 3)
    assert asked_by_query(Asked, request(b"name=a&name=b")) == Asked("a,b")
    assert asked_by_query(Asked, request(b"name=a&limit=")) == Asked("a", 1)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{}", "name", "name is missing."),
        (b'{"name": 1}', "name", "name: Expected `str`, got `int`."),
        (b'{"name": "x", "limti": 1}', "limti", "limti is unknown here; did you mean 'limit'?"),
        (b'{"name": "x", "inner": {"sise": 1}}', "inner.sise", "inner.sise is unknown here."),
        (b'{"name": "x", "inner": {"size": "1"}}', "inner.size", "inner.size: Expected `int`, got `str`."),
        (b'{"name": "x", "limit": 0}', "limit", "limit: Expected `int` >= 1."),
    ],
)
async def test_complaints_name_the_field(body: bytes, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await asked_by_body(Asked, request(body=body))
    assert (refused.value.param, refused.value.message) == (param, words)


async def test_who_hangs_up_asked_nothing() -> None:
    with pytest.raises(ClientGone):
        await asked_by_body(Asked, request(body=b"{", ends=False))
