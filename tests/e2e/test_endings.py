"""Every way a call can end: one record each, with the outcome and the tokens that the upstream's ledger has."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, COMPLETIONS, Tenant, all_at_once, figures
from tests.lab.client import Connection, data_of, post
from tests.lab.exchange import Call
from tests.lab.gateway import Json
from tests.lab.waiting import eventually

pytestmark = pytest.mark.e2e

WORDS = 3  # of the prompt
COMMENT = b": keep-alive\n\n"
CLOSED_WITHIN = 1.0  # seconds from a hang-up to the end of the upstream's connection

HangUp = Callable[[Connection], None]


async def event(connection: Connection) -> bytes:
    """The next event that is not a comment."""
    while (found := await connection.event()) == COMMENT:
        pass
    return found


def by_request(records: list[Json]) -> dict[str, Json]:
    return {record["request_id"]: record for record in records}


def agree(record: Json, call: Call) -> None:
    """A record and the upstream's own line of the same call have the same tokens."""
    assert (record["tokens"]["prompt"], record["tokens"]["completion"]) == (
        call.prompt_tokens, call.completion_tokens), (record, call.model)


# --- the caller leaves


async def leave_after(tenant: Tenant, k: int, hang_up: HangUp) -> float:
    """Reads k events of a stream that then holds, and hangs up; how long the upstream's connection lived on."""
    model = f"hold-after-{k}~hang"
    before = len(tenant.upstream.calls)
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking(model, stream=True, headers={"x-request-id": model}))
        call = await eventually(lambda: next((call for call in tenant.upstream.calls[before:] if call.held), None),
                                f"{model} is held")
        if k:
            assert (await connection.head()).status == 200
        for _ in range(k):
            await event(connection)
        hang_up(connection)
        left = time.monotonic()
        await eventually(lambda: call is not None and call.ending == "peer_gone", f"{model} was cut")
        return time.monotonic() - left


@pytest.mark.parametrize("hang_up", [Connection.close, Connection.reset], ids=["fin", "rst"])
async def test_a_hang_up_at_every_event(tenant: Tenant, hang_up: HangUp) -> None:
    took = [await leave_after(tenant, k, hang_up) for k in range(7)]
    assert max(took) < CLOSED_WITHIN
    records = by_request(await tenant.records(7))
    for k, call in enumerate(tenant.calls):
        record = records[f"hold-after-{k}~hang"]
        assert figures(record) == ("client_gone", 200 if k else 499, WORDS, k, "counted"), record
        agree(record, call)


async def test_a_hang_up_at_done_is_no_hang_up(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("ok-5", stream=True))
        await connection.head()
        while (await event(connection)) != b"data: [DONE]\n\n":
            pass
        connection.reset()
    assert figures(await tenant.record()) == ("completed", 200, WORDS, 5, "upstream")


async def test_a_caller_that_does_not_wait_for_a_whole_answer(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("hold-before-headers"))
        (call,) = await tenant.seen(1)
    left = time.monotonic()
    await eventually(lambda: call.ending == "peer_gone", "the upstream's connection was closed")
    assert time.monotonic() - left < CLOSED_WITHIN
    assert figures(await tenant.record()) == ("client_gone", 499, 0, 0, "none")


async def test_where_the_vendor_bills_anyway_the_rest_is_read(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("drained", stream=True))
        await connection.head()
        await event(connection)
        await event(connection)
    await asyncio.sleep(0.5)  # long enough for a hang-up to be noticed: nothing else may follow from it
    (call,) = tenant.calls
    assert call.ending == "open"
    tenant.upstream.release(call.model)
    await eventually(lambda: call.ending == "finished", "the answer was read to its end")
    assert figures(await tenant.record()) == ("client_gone", 200, WORDS, 4, "upstream")
    agree(await tenant.record(), call)


# --- the upstream dies

PHASES = [
    # model, stream, status, completion tokens, outcome, who counted
    ("unreachable", True, 502, 0, "upstream_error", "none"),
    ("rst-before-headers", True, 502, 0, "upstream_error", "none"),
    ("close-before-headers", False, 502, 0, "upstream_error", "none"),
    ("die-after-0", True, 502, 0, "upstream_error", "counted"),
    ("die-after-7", True, 200, 7, "upstream_error", "counted"),
    ("reset-after-4", True, 200, None, "upstream_error", "counted"),
    ("reset-mid-chunk", True, 200, None, "upstream_error", "counted"),
    ("truncated-length", False, 502, 0, "upstream_error", "none"),
    ("stalls", True, 200, 3, "timeout", "counted"),
    ("silent", False, 504, 0, "timeout", "none"),
    ("error-event-after-3", True, 200, 3, "upstream_error", "counted"),
]


@pytest.mark.parametrize(("model", "stream", "status", "completion", "outcome", "source"), PHASES)
async def test_the_upstream_dies(tenant: Tenant, *, model: str, stream: bool, status: int, completion: int | None,
                                 outcome: str, source: str) -> None:
    """`completion` is None where an RST may have overtaken what was said before it."""
    answer = await tenant.ask(model, stream=stream)
    assert answer.status == status, answer.body
    said = data_of(answer.events) if status == 200 else [answer.json]
    assert "[DONE]" not in said
    assert set(said[-1]["error"]) == {"message", "type", "param", "code"}
    record = await tenant.record()
    assert (record["outcome"], record["status"], record["usage_source"]) == (outcome, status, source), record
    if completion is not None:
        assert record["tokens"]["completion"] == completion
        assert sum("choices" in event for event in said) == completion
    assert len(record["attempts"]) == 1
    assert record["attempts"][0]["reason"] != "ok"


async def test_a_deadline_for_all_of_it(tenant: Tenant) -> None:
    began = time.monotonic()
    answer = await tenant.ask("lasting", stream=True)
    assert 0.7 < time.monotonic() - began < 3
    *chunks, error = data_of(answer.events)
    assert "total" in error["error"]["message"]
    record = await tenant.record()
    assert figures(record) == ("timeout", 200, WORDS, len(chunks), "counted")
    assert record["attempts"][0]["reason"] == "timeout_total"


async def test_an_error_that_comes_first_has_its_status(tenant: Tenant) -> None:
    answer = await tenant.ask("error-event-first", stream=True)
    assert answer.status == 502
    assert answer.header("content-type") == "application/json"
    assert (await tenant.record())["outcome"] == "upstream_error"


@pytest.mark.parametrize(("model", "source"), [
    ("no-usage", "counted"), ("usage-with-choices", "upstream"), ("no-done", "upstream"),
    ("usage-bad-negative", "counted"), ("usage-bad-huge", "counted"), ("usage-bad-string", "counted"),
])
async def test_whatever_the_upstream_says_of_usage(tenant: Tenant, model: str, source: str) -> None:
    answer = await tenant.ask(model, stream=True)
    assert data_of(answer.events)[-1] == "[DONE]"
    record = await tenant.record()
    agree(record, tenant.calls[0])
    assert (record["outcome"], record["usage_source"]) == ("completed", source)


@pytest.mark.parametrize("model", ["html-200", "gzip", "redirect", "status-500-html", "status-401"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_is_no_answer_is_a_bad_gateway(tenant: Tenant, model: str, *, stream: bool) -> None:
    answer = await tenant.ask(model, stream=stream)
    assert answer.status == 502
    assert answer.json["error"]["code"] in ("upstream_error", "upstream_auth")
    assert figures(await tenant.record()) == ("upstream_error", 502, 0, 0, "none")


async def test_json_where_a_stream_was_asked_for(tenant: Tenant) -> None:
    answer = await tenant.ask("json-to-stream", stream=True)
    assert answer.header("content-type") == "application/json"
    agree(await tenant.record(), tenant.calls[0])


async def test_a_second_answer_is_nobodys(tenant: Tenant) -> None:
    """Bytes behind an answer, and both framings at once: never a byte of one answer in another."""
    for model in ("two-responses", "cl-and-te", "two-responses", "ok-1"):
        answers = await all_at_once(*(tenant.ask(model) for _ in range(4)))
        assert all(b"smuggled" not in answer.body for answer in answers)
        assert {answer.status for answer in answers} <= ({200} if model == "ok-1" else {200, 502})


# --- while nothing is said


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_comments_keep_a_stream_alive(tenant: Tenant, path: str) -> None:
    """Also before the first token, when no status has come from the upstream yet."""
    body: dict[str, Any] = {"prompt": "a b c"} if path == COMPLETIONS else {}
    model = "hold-before-headers" if path == CHAT else "hold-after-0"
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking(model, path=path, stream=True, **body))
        head = await connection.head(3)
        assert (head.status, head.header("content-type")) == (200, "text/event-stream; charset=utf-8")
        assert await connection.events(2, 3) == [COMMENT, COMMENT]
    assert (await tenant.record())["outcome"] == "client_gone"


async def test_an_error_after_a_comment_is_an_event(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("silent", stream=True))
        assert (await connection.head()).status == 200
        assert await connection.event() == COMMENT
        (error,) = data_of([await event(connection)])
        assert error["error"]["code"] == "upstream_timeout"
        assert await connection.event() == b""
    assert figures(await tenant.record()) == ("timeout", 200, 0, 0, "none")


# --- replicas


@pytest.mark.parametrize(("model", "first", "reason"), [
    ("falls-back", 0, "reset"), ("falls-back-on-503", 503, "status_503"),
])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_the_next_replica_answers(tenant: Tenant, model: str, first: int, reason: str, *, stream: bool) -> None:
    answer = await tenant.ask(model, stream=stream)
    assert answer.status == 200
    assert len({call.request_id for call in tenant.calls}) == 1
    record = await tenant.record()
    assert figures(record) == ("completed", 200, WORDS, 3, "upstream")
    tried = [(attempt["status"], attempt["reason"]) for attempt in record["attempts"]]
    assert tried in ([(first, reason), (200, "ok")], [(200, "ok")]), "it is asked last once it has failed often"


async def test_after_the_first_byte_nobody_else_is_asked(tenant: Tenant) -> None:
    answer = await tenant.ask("breaks-late", stream=True)
    assert answer.status == 200
    assert len(tenant.calls) == 1
    assert "error" in data_of(answer.events)[-1]
    record = await tenant.record()
    assert figures(record) == ("upstream_error", 200, WORDS, 2, "counted")


async def test_the_least_busy_replica_is_asked(tenant: Tenant) -> None:
    """On a fleet each worker knows of its own calls only."""
    connections = [await tenant.gateway.connect() for _ in range(8)]
    for number, connection in enumerate(connections, 1):
        await connection.send(tenant.asking("two-replicas", stream=True))
        await tenant.seen(number)
    replicas = [call.model for call in tenant.calls]
    right = replicas.count("hold-after-1~right")
    assert right == 4 if tenant.kind == "embedded" else 3 <= right <= 5
    for connection in connections:
        connection.close()
    await tenant.records(8)


async def test_a_replica_that_keeps_failing_is_left_alone(tenant: Tenant) -> None:
    async def bad_calls() -> int:
        return sum(call.model == "status-500~bad" for call in tenant.calls)

    answers = [await tenant.ask("one-is-broken") for _ in range(30)]
    assert {answer.status for answer in answers} == {200}
    workers = len(tenant.gateway.workers)
    assert 1 <= await bad_calls() <= 5 * workers
    assert {record["outcome"] for record in await tenant.records(30)} == {"completed"}
