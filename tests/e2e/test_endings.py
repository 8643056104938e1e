"""Every way a call can end: one record each, with the outcome and the tokens of the upstream's own ledger."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.deployment import CHAT, COMPLETIONS, Tenant, all_at_once, figures
from tests.lab.behaviours import count_words
from tests.lab.client import Answer, Connection, data_of
from tests.lab.exchange import Call, Exchange
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
        call.prompt_tokens,
        call.completion_tokens,
    ), (record, call.model)


# --- the caller leaves


async def leave_after(tenant: Tenant, k: int, hang_up: HangUp) -> float:
    """Reads k events of a stream that then holds, and hangs up; how long the upstream's connection lived."""
    model = f"hold-after-{k}~hang"
    before = len(tenant.upstream.calls)
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking(model, stream=True, headers={"x-request-id": model}))
        call = await eventually(
            lambda: next((call for call in tenant.upstream.calls[before:] if call.held), None),
            f"{model} is held",
        )
        if k:
            assert (await connection.head()).status == 200
        for _ in range(k):
            await event(connection)
        hang_up(connection)
        left = time.monotonic()
        await eventually(lambda: call is not None and call.ending == "peer_gone", f"{model} was cut")
        return time.monotonic() - left


async def test_r_acc_02_a_hang_up_while_tokens_are_counted(tenant: Tenant) -> None:
    """All is said but its usage, and a tokeniser is asked: who leaves then is billed what it counts."""
    model, gate = "no-usage~counted", asyncio.Event()

    async def held(x: Exchange) -> None:
        await gate.wait()
        await count_words(x)

    tenant.upstream.tokenizer(model, held)
    async with await tenant.gateway.connect() as connection:
        before = len(tenant.upstream.counts)
        await connection.send(tenant.asking(model, stream=True))
        await eventually(lambda: len(tenant.upstream.counts) > before, "its tokens are counted")
        asked = len(tenant.upstream.counts)
        connection.reset()
        await eventually(lambda: len(tenant.upstream.counts) > asked, "they are counted still")
    gate.set()
    (record,) = await tenant.records(1)
    (call,) = tenant.calls
    assert (record["outcome"], record["usage_source"]) == ("completed", "counted")
    agree(record, call)


@pytest.mark.parametrize("hang_up", [Connection.close, Connection.reset], ids=["fin", "rst"])
async def test_r_acc_02_a_hang_up_at_every_event(tenant: Tenant, hang_up: HangUp) -> None:
    took = await all_at_once(*(leave_after(tenant, k, hang_up) for k in range(7)))
    assert max(took) < CLOSED_WITHIN
    records = by_request(await tenant.records(7))
    for call in tenant.calls:
        k = call.completion_tokens
        expected = ("client_gone", 200 if k else 499, WORDS, k, "counted")
        assert figures(records[f"hold-after-{k}~hang"]) == expected, records
        (attempt,) = records[f"hold-after-{k}~hang"]["attempts"]
        assert (attempt["status"], attempt["reason"]) == (200, "interrupted")


async def test_a_hang_up_at_done_is_no_hang_up(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("ok-5", stream=True))
        await connection.head()
        while (await event(connection)) != b"data: [DONE]\n\n":
            pass
        connection.reset()
    assert figures(await tenant.record()) == ("completed", 200, WORDS, 5, "upstream")


async def test_r_acc_03_a_caller_that_does_not_wait_for_a_whole_answer(tenant: Tenant) -> None:
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


async def test_r_acc_03_where_the_vendor_bills_anyway_a_whole_answer_is_read(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("drained-whole"))
        (call,) = await tenant.seen(1)
    await asyncio.sleep(0.5)  # as above
    assert call.ending == "open"
    tenant.upstream.release(call.model)
    await eventually(lambda: call.ending == "finished", "the answer was read to its end")
    record = await tenant.record()
    agree(record, call)
    assert (record["outcome"], record["usage_source"]) == ("client_gone", "upstream")


# --- the upstream dies

DEATHS: dict[tuple[str, bool], tuple[int, int | None, str, str]] = {
    # model, whether streamed: status, completion tokens, outcome, who counted; an RST may overtake words
    ("unreachable", True): (502, 0, "upstream_error", "none"),
    ("rst-before-headers", True): (502, 0, "upstream_error", "none"),
    ("close-before-headers", False): (502, 0, "upstream_error", "none"),
    ("die-after-0", True): (502, 0, "upstream_error", "counted"),
    ("die-after-7", True): (200, 7, "upstream_error", "counted"),
    ("die-after-7", False): (502, 0, "upstream_error", "none"),
    ("reset-after-4", True): (200, None, "upstream_error", "counted"),
    ("reset-mid-chunk", True): (200, None, "upstream_error", "counted"),
    ("truncated-length", False): (502, 0, "upstream_error", "none"),
    ("stalls", True): (200, 3, "timeout", "counted"),
    ("stalls", False): (504, 0, "timeout", "none"),
    ("silent", False): (504, 0, "timeout", "none"),
    ("error-event-first", True): (502, 0, "upstream_error", "counted"),
    ("error-event-after-3", True): (200, 3, "upstream_error", "counted"),
    ("html-200", True): (502, 0, "upstream_error", "none"),
    ("html-200", False): (502, 0, "upstream_error", "none"),
    ("gzip", True): (502, 0, "upstream_error", "none"),
    ("gzip", False): (502, 0, "upstream_error", "none"),
    ("redirect", True): (502, 0, "upstream_error", "none"),
    ("status-500-html", True): (502, 0, "upstream_error", "none"),
    ("status-401", False): (502, 0, "upstream_error", "none"),
    ("status-429", True): (429, 0, "upstream_error", "none"),
}


async def test_r_fault_01_02_03_04_05_10_12_the_upstream_dies(tenant: Tenant) -> None:
    """In every phase: the caller hears of it, nobody says `[DONE]`, and what was relayed is counted."""
    records = {}
    for case, answer, record in await each(tenant, *DEATHS):
        status, completion, _, _ = DEATHS[case]
        said = data_of(answer.events) if status == 200 else [answer.json]
        assert answer.status == status, (case, answer.body)
        assert "[DONE]" not in said
        assert set(said[-1]["error"]) == {"message", "type", "param", "code"}, case
        relayed = sum(bool(choice["delta"]) for event in said for choice in event.get("choices", ()))
        assert relayed == record["tokens"]["completion"], case
        (attempt,) = record["attempts"]
        assert attempt["reason"] != "ok", case
        counted = None if completion is None else record["tokens"]["completion"]
        records[case] = (record["status"], counted, record["outcome"], record["usage_source"])
    assert records == DEATHS


async def each(tenant: Tenant, *cases: tuple[str, bool]) -> list[tuple[tuple[str, bool], Answer, Json]]:
    """The answers to these models, asked at the same time, whole or streamed, with their records."""
    names = {case: f"{case[0]}-{case[1]}" for case in cases}
    answers = await all_at_once(
        *(
            tenant.ask(model, stream=stream, headers={"x-request-id": names[model, stream]})
            for model, stream in cases
        )
    )
    records = by_request(await tenant.records(len(cases)))
    return [(case, answer, records[names[case]]) for case, answer in zip(cases, answers, strict=True)]


async def test_a_deadline_for_all_of_it(tenant: Tenant) -> None:
    began = time.monotonic()
    answer = await tenant.ask("lasting", stream=True)
    assert 0.7 < time.monotonic() - began < 3
    *chunks, error = data_of(answer.events)
    assert "total" in error["error"]["message"]
    record = await tenant.record()
    assert figures(record) == ("timeout", 200, WORDS, len(chunks), "counted")
    assert record["attempts"][0]["reason"] == "timeout_total"


SOURCES = {
    "no-usage": "counted",
    "usage-with-choices": "upstream",
    "no-done": "upstream",
    "usage-bad-negative": "counted",
    "usage-bad-huge": "counted",
    "usage-bad-string": "counted",
    "http10": "upstream",
    "ok-5": "upstream",
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_r_fault_11_15_whatever_the_upstream_says_of_usage(tenant: Tenant, *, stream: bool) -> None:
    found = {}
    calls: dict[str, Call] = {}
    for (model, _), answer, record in await each(tenant, *((model, stream) for model in SOURCES)):
        calls |= {call.model: call for call in tenant.calls if call.model == model}
        assert not stream or data_of(answer.events)[-1] == "[DONE]", model
        agree(record, calls[model])
        assert record["outcome"] == "completed"
        found[model] = record["usage_source"]
    assert found == SOURCES


async def test_r_fault_12_json_where_a_stream_was_asked_for(tenant: Tenant) -> None:
    answer = await tenant.ask("json-to-stream", stream=True)
    assert answer.header("content-type") == "application/json"
    agree(await tenant.record(), tenant.calls[0])


async def test_a_second_answer_is_nobodys(tenant: Tenant) -> None:
    """Bytes behind an answer, and both framings at once: never a byte of one answer in another."""
    for model in ("two-responses", "cl-and-te", "two-responses", "ok-1"):
        answers = await all_at_once(*(tenant.ask(model) for _ in range(4)))
        assert all(b"smuggled" not in answer.body for answer in answers)
        # Stray bytes that meet a request on a kept connection cost it its answer, never give it another's.
        assert {answer.status for answer in answers} <= {200, 502}
    assert (await tenant.ask("ok-1")).status == 200


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


async def test_r_fault_02_an_error_after_a_comment_is_an_event(tenant: Tenant) -> None:
    async with await tenant.gateway.connect() as connection:
        await connection.send(tenant.asking("silent", stream=True))
        assert (await connection.head()).status == 200
        assert await connection.event() == COMMENT
        (error,) = data_of([await event(connection)])
        assert error["error"]["code"] == "upstream_timeout"
        assert await connection.event() == b""
    assert figures(await tenant.record()) == ("timeout", 200, 0, 0, "none")


async def test_r_fault_12_json_after_a_comment_is_an_error_event(tenant: Tenant) -> None:
    """Once the stream has begun for the caller, an answer that is none cannot be passed on."""

    async def late(x: Exchange) -> None:
        await asyncio.sleep(0.9)
        await x.head(content_type="application/json")
        await x.piece(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}')
        await x.end()

    tenant.upstream.script("scripted-9", late)
    answer = await tenant.ask("scripted-9", stream=True)
    assert answer.body.startswith(COMMENT)
    assert data_of(answer.events)[-1]["error"]["code"] == "upstream_error"
    record = await tenant.record()
    assert (record["outcome"], record["attempts"][0]["reason"]) == ("upstream_error", "type")


# --- replicas


async def test_r_fault_03_r_acc_04_the_next_replica_answers(tenant: Tenant) -> None:
    first = {"falls-back": (0, "reset"), "falls-back-on-503": (503, "status_503")}
    cases = [(model, stream) for model in first for stream in (False, True)]
    for (model, stream), answer, record in await each(tenant, *cases):
        assert answer.status == 200
        assert figures(record) == ("completed", 200, WORDS, 3, "upstream"), (model, stream)
        tried = [(attempt["status"], attempt["reason"]) for attempt in record["attempts"]]
        assert tried in ([first[model], (200, "ok")], [(200, "ok")]), (
            "it is asked last once it has failed often"
        )


async def test_r_fault_04_r_acc_04_after_the_first_byte_nobody_else_is_asked(tenant: Tenant) -> None:
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


async def test_r_fault_16_a_replica_that_keeps_failing_is_left_alone(tenant: Tenant) -> None:
    async def bad_calls() -> int:
        return sum(call.model == "status-500~bad" for call in tenant.calls)

    answers = [await tenant.ask("one-is-broken") for _ in range(30)]
    assert {answer.status for answer in answers} == {200}
    workers = len(tenant.gateway.workers)
    assert 1 <= await bad_calls() <= 5 * workers
    assert {record["outcome"] for record in await tenant.records(30)} == {"completed"}
