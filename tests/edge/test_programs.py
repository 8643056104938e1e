"""`/v1` for programs: every failure is told in OpenAI's shape."""

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.errors import (
    BudgetSpent,
    GatewayError,
    InvalidRequest,
    ModelNotAllowed,
    NoSuchModel,
    NotAuthenticated,
    OverLimit,
    UpstreamFailed,
)
from llmgateway.domain.keys import Principal
from llmgateway.domain.ports import Caller
from llmgateway.domain.refusals import Refusal
from llmgateway.edge.asgi import Message
from llmgateway.edge.programs import Programs, endpoint_at
from llmgateway.flow.gateway import Gateway
from tests.doubles import SetClock


class Failing:
    """A gateway whose calls end in one way."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure
        self.callers: list[Caller] = []

    async def exchange(self, caller: Caller) -> None:
        self.callers.append(caller)
        raise self._failure

    async def authenticate(self, token: bytes) -> Principal:
        if not token:
            raise NotAuthenticated
        return Principal("key-1", "aino", None, None)


async def answered(
    failure: Exception, refusals: list[tuple[str, Refusal]] | None = None, token: bytes = b"a-key"
) -> tuple[Message, dict[str, Any], Caller]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    gateway = Failing(failure)
    noted = [] if refusals is None else refusals
    programs = Programs(
        cast(Gateway, gateway), SetClock(), max_body=100,
        refused=lambda user, refusal: noted.append((user, refusal)),
    )  # fmt: skip
    scope = {"headers": [(b"x-request-id", b"mine"), (b"x-api-key", token)]}
    await programs(scope, receive, send, ENDPOINTS["/v1/embeddings"])
    return sent[0], json.loads(sent[1]["body"])["error"], gateway.callers[0]


async def test_an_error_is_told() -> None:
    head, error, caller = await answered(NoSuchModel("m"))
    assert (head["status"], error["code"]) == (404, "model_not_found")
    assert caller.at == datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failure", "status"),
    [(OverLimit("No."), 429), (BudgetSpent("No."), 429), (NoSuchModel("m"), 404), (ModelNotAllowed("m"), 403),
     (InvalidRequest("No."), 400)],
)  # fmt: skip
async def test_what_leaves_no_record_is_noted_for_its_people(failure: GatewayError, status: int) -> None:
    refusals: list[tuple[str, Refusal]] = []
    await answered(failure, refusals)
    ((user, refusal),) = refusals
    assert (user, refusal.key, refusal.status, refusal.code) == ("aino", "key-1", status, failure.code)
    assert (refusal.message, refusal.request_id) == (failure.message, "mine")
    await answered(failure, refusals, token=b"")
    await answered(UpstreamFailed("It broke.", reason="reset"), refusals)
    await answered(NotAuthenticated(), refusals)
    assert len(refusals) == 1


async def test_a_failure_of_ours_says_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    head, error, _ = await answered(RuntimeError("secret words"))
    assert (head["status"], error["code"]) == (500, "internal_error")
    assert (b"x-request-id", b"mine") in head["headers"]
    assert "secret words" not in json.dumps(error)
    assert "a call failed inside the gateway" in caplog.text


def test_a_trailing_slash_is_forgiven_and_nothing_else() -> None:
    assert (
        endpoint_at("/v1/chat/completions/")
        is endpoint_at("/v1/chat/completions")
        is ENDPOINTS["/v1/chat/completions"]
    )
    for path in (
        "/v1/chat",
        "/V1/chat/completions",
        "//v1/chat/completions",
        "/v1/chat/completions/x",
        "/v1/models",
        "",
    ):
        assert endpoint_at(path) is None
