import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from llmgateway.domain.catalog import Catalog, Deadlines, Model, Target
from llmgateway.domain.errors import NotAuthenticated, UpstreamFailed
from llmgateway.domain.keys import Principal
from llmgateway.domain.ports import Reply, UpstreamRequest
from llmgateway.domain.pricing import Price
from llmgateway.edge.middleware import HANDLERS
from llmgateway.edge.models import Models
from llmgateway.flow.count import Count
from llmgateway.flow.route import Route
from llmgateway.providers.echo import Echo
from llmgateway.upstream.local import LocalReply, WithLocal
from tests.doubles import SetClock

AT = datetime(2026, 11, 1, tzinfo=UTC)
ECHO = Target(provider="echo", url="", model="echo")
MODELS = [
    Model(id="echo", targets=(ECHO,), created=AT),
    Model(
        id="org/big",
        aliases=("default",),
        targets=(Target(url="http://x/v1", model="big"),),
        context=4096,
        data_class="private",
        price=Price(id="p", input=200_000, output=800_000),
        created=AT,
        owned_by="team",
    ),
]
PRINCIPALS = {
    b"all": Principal("k1", "alice", None, None),
    b"one": Principal("k2", "bob", None, frozenset({"echo"})),
}


class Doorman:
    """Authenticates two tokens."""

    async def __call__(self, token: bytes) -> Principal:
        if token not in PRINCIPALS:
            raise NotAuthenticated
        return PRINCIPALS[token]


class Nobody:
    """An upstream where no server answers."""

    def order(self, targets: Sequence[Target]) -> Sequence[Target]:
        return targets

    async def send(self, target: Target, request: UpstreamRequest, deadlines: Deadlines) -> Reply:
        raise UpstreamFailed("away", reason="connect")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    echo = Echo(lambda: AT)
    upstream = WithLocal(Nobody(), {"echo": lambda request: LocalReply(*echo.answer(request))})
    route = Route(Catalog(MODELS), upstream.order)
    count = Count(upstream, SetClock().monotonic)
    models = Models(Doorman(), route, count, currency="EUR", max_body=1000)  # type: ignore[arg-type]
    app = Starlette(routes=models.routes(), exception_handlers=HANDLERS)
    headers = {"authorization": "Bearer all"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as opened:
        yield opened


async def test_a_key_sees_what_it_may_call(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [card["id"] for card in listed["data"]] == ["echo", "org/big"]
    fewer = (await client.get("/v1/models", headers={"authorization": "Bearer one"})).json()
    assert [card["id"] for card in fewer["data"]] == ["echo"]


@pytest.mark.parametrize("name", ["org/big", "org%2Fbig", "default"])
async def test_a_card_says_what_is_known(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/v1/models/{name}")).json() == {
        "id": "org/big",
        "object": "model",
        "created": int(AT.timestamp()),
        "owned_by": "team",
        "aliases": ["default"],
        "price": {"input": 0.2, "output": 0.8, "request": 0, "currency": "EUR"},
        "max_model_len": 4096,
        "data_class": "private",
    }


async def test_what_is_not_there_and_what_is_not_allowed(client: httpx.AsyncClient) -> None:
    missing = await client.get("/v1/models/none")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    refused = await client.get("/v1/models/org/big", headers={"authorization": "Bearer one"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/v1/models/echo"), ("POST", "/extras/tokenize/count")],
)
async def test_nobody_is_served_without_a_key(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path, headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"model": "echo", "input": "one two three"}, 3),
        ({"model": "echo", "input": ["one two", "three"]}, 3),
        ({"model": "echo", "prompt": "one"}, 1),
        (
            {
                "model": "echo",
                "messages": [{"role": "user", "content": "a b"}, {"role": "user", "content": "c"}],
            },
            3,
        ),
        ({"input": {"model": "echo", "messages": [{"role": "user", "content": "a b c d"}]}}, 4),
        ({"model": "echo", "input": {"messages": [{"role": "user", "content": "a"}]}}, 1),
    ],
)
@pytest.mark.parametrize("path", ["/extras/tokenize/count", "/v1/extras/tokenize/count"])
async def test_tokens_are_counted(client: httpx.AsyncClient, path: str, asked: Any, count: int) -> None:
    assert (await client.post(path, json=asked)).json() == {"count": count, "source": "counted"}


async def test_without_a_tokeniser_it_is_an_estimate_that_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/extras/tokenize/count", json={"model": "org/big", "input": "x" * 10})
    assert answer.json() == {"count": 3, "source": "estimated"}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"", 400, None),
        (b"[]", 400, None),
        (b'{"model":"echo"}', 400, "input"),
        (b'{"input":"x"}', 400, "model"),
        (b'{"model":1,"input":"x"}', 400, "model"),
        (b'{"model":"echo","input":"a","input":"b"}', 400, "input"),
        (b'{"model":"none","input":"a"}', 404, "model"),
        (json.dumps({"model": "echo", "input": "x" * 1000}).encode(), 413, None),
    ],
)
async def test_what_cannot_be_counted(
    client: httpx.AsyncClient, body: bytes, status: int, param: str | None
) -> None:
    answer = await client.post("/extras/tokenize/count", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_a_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/extras/tokenize/count", content=b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
