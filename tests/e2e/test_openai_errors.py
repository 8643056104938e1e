"""The official Python SDK, unmodified: every error as its own class, retries, deadlines."""

import json
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.e2e.deployment import Tenant
from tests.e2e.sdk import chat

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("model", "kind", "status", "code"),
    [
        ("status-400", openai.BadRequestError, 400, "lab_400"),
        ("status-401", openai.InternalServerError, 502, "upstream_auth"),
        ("status-403", openai.InternalServerError, 502, "upstream_auth"),
        ("status-404", openai.NotFoundError, 404, "lab_404"),
        ("status-409", openai.ConflictError, 409, "lab_409"),
        ("status-413", openai.APIStatusError, 413, "lab_413"),
        ("status-422", openai.UnprocessableEntityError, 422, "lab_422"),
        ("status-429", openai.RateLimitError, 429, "lab_429"),
        ("status-500", openai.InternalServerError, 502, "upstream_error"),
        ("status-503", openai.InternalServerError, 503, "overloaded"),
        ("status-504", openai.InternalServerError, 504, "upstream_timeout"),
        ("status-529", openai.InternalServerError, 503, "overloaded"),
        ("rst-before-headers", openai.InternalServerError, 502, "upstream_error"),
        ("unreachable", openai.InternalServerError, 502, "upstream_error"),
        ("html-200", openai.InternalServerError, 502, "upstream_error"),
        ("nobody", openai.NotFoundError, 404, "model_not_found"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_r_fault_13_errors_have_their_class(
    client: AsyncOpenAI,
    tenant: Tenant,
    model: str,
    *,
    kind: type[openai.APIStatusError],
    status: int,
    code: str,
    stream: bool,
) -> None:
    with pytest.raises(kind) as caught:
        await chat(client, model, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    assert set(json.loads(caught.value.response.text)["error"]) == {"message", "type", "param", "code"}


async def test_a_silent_model_is_a_timeout(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await chat(client, "silent")
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


async def test_a_wrong_key_is_an_authentication_error(tenant: Tenant) -> None:
    wrong = tenant.key.secret[:-1] + ("0" if tenant.key.secret[-1] != "0" else "1")
    async with AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=wrong, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await chat(client, "ok-1")
    assert caught.value.code == "invalid_api_key"
    assert wrong not in caught.value.message


async def test_a_model_that_is_not_allowed(tenant: Tenant) -> None:
    narrow = await tenant.gateway.create_key(tenant.user, models=["ok-1"])
    async with AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=narrow.secret, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await chat(client, "ok-5")
        assert (caught.value.code, caught.value.param) == ("model_not_allowed", "model")
        assert [model.id async for model in client.models.list()] == ["ok-1"]


async def test_a_wrong_field_is_named(client: AsyncOpenAI, tenant: Tenant) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await chat(client, "ok-1", n="three")
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "invalid_value",
        "n",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError, match="64"):
        await chat(client, "bounded", max_tokens=65)
    with pytest.raises(openai.BadRequestError, match="choices"):
        await chat(client, "bounded", n=5)
    assert tenant.calls == []


async def test_an_error_in_the_middle_of_a_stream(client: AsyncOpenAI, tenant: Tenant) -> None:
    said: list[str] = []

    async def listen(model: str) -> None:
        async for chunk in await chat(client, model, stream=True):
            said.append(str(chunk.choices[0].delta.content))  # noqa: PERF401 - it is to be kept when it breaks off

    with pytest.raises(openai.APIError, match="engine died"):
        await listen("error-event-after-3")
    assert said == ["w0", " w1", " w2"]
    with pytest.raises(openai.APIError, match="closed"):
        await listen("die-after-7")
    assert len(said) == 10
    first, second = await tenant.records(2)
    assert (first["outcome"], second["outcome"]) == ("upstream_error", "upstream_error")


# --- retries and deadlines


def with_retries(tenant: Tenant, **options: Any) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=tenant.gateway.base_url, api_key=tenant.key.secret, **options)


async def test_a_retry_after_is_obeyed(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=1) as client:
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            await chat(client, "status-429-retry-after-1")
        assert 1 <= time.monotonic() - began < 5
    assert caught.value.response.headers["retry-after"] == "1"
    assert len(tenant.calls) == 2
    assert [record["client"]["retry"] for record in await tenant.records(2)] == [0, 1]


async def test_r_fault_13_an_endless_retry_after_is_clamped(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await chat(client, "status-429-retry-after-1000000000")
    assert caught.value.response.headers["retry-after"] == "60"


async def test_the_sdk_tries_again_until_it_works(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=2) as client:
        answer = await chat(client, "flaky-2x503~python")
    assert answer.choices[0].message.content
    assert len(tenant.calls) == 3
    assert [record["status"] for record in await tenant.records(3)] == [503, 503, 200]


async def test_a_refusal_is_not_tried_again(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=2) as client:
        with pytest.raises(openai.BadRequestError):
            await chat(client, "status-400")
    assert len(tenant.calls) == 1


async def test_the_callers_own_deadline(tenant: Tenant) -> None:
    async with with_retries(tenant, max_retries=0, timeout=0.4) as client:
        with pytest.raises(openai.APITimeoutError):
            await chat(client, "hold-before-headers~plain")
    assert (await tenant.record())["outcome"] == "client_gone"
