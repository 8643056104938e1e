"""Every check is seen to fail."""

import gzip
import re

from llmgateway.cli.conform.streams import CHECKS
from tests.cli.conform.conftest import Suffer, behind_each
from tests.cli.conform.test_answers import no_page, swapped
from tests.lab.client import Answer
from tests.lab.exchange import Call
from tests.lab.ingress import Changed, Fault


def untouched(call: Call, answer: Answer) -> Answer:
    """It is held back until it is whole."""
    return answer


def compressed(call: Call, answer: Answer) -> Answer:
    return Changed(answer)(body=gzip.compress(answer.body), content_encoding="gzip")


def first_only(call: Call, answer: Answer) -> Answer:
    return Changed(answer)(body=b"".join(answer.events[:1]))


def with_usage(call: Call, answer: Answer) -> Answer:
    first = re.sub(rb'"choices":\[.*\]', b'"choices":[]', answer.events[0])
    return Changed(answer)(body=answer.body.replace(b"data: [DONE]", first + b"data: [DONE]"))


DONE = rb"data: \[DONE\]\n\n"
CHOSEN = b'"choices":[{"index":0,"delta":{}}],'
FAULTS: list[tuple[str, str, Fault, str]] = [
    ("stream.type", "failed", no_page, "came 200 text/html"),
    ("stream.compression", "failed", compressed, "expected no compression; came gzip"),
    ("stream.cache", "differs", lambda _, answer: Changed(answer)(cache_control=None), "came None"),
    ("stream.cache", "differs", lambda _, answer: Changed(answer)(cache_control="max-age=60"), "max-age"),
    ("stream.framing", "failed", swapped(rb"^data:", b"event: ping\n\ndata:"), "came event: ping"),
    ("stream.framing", "failed", swapped(DONE, b"data: [DONE]\n"), "each with a blank line"),
    ("stream.ids", "failed", swapped(rb'^data: {"id":"', b'data: {"id":"1'), "one id on all chunks"),
    ("stream.ids", "failed", swapped(rb'"created":', b'"made":'), "chunks of a chat"),
    ("stream.finish", "failed", swapped(rb'"finish_reason":"\w+"', b'"finish_reason":null'), "came []"),
    ("stream.finish", "failed", swapped(rb'"finish_reason":null', b'"finish_reason":"stop"'), "came ['s"),
    ("stream.usage", "failed", swapped(rb'"choices":\[\],', CHOSEN), "a last"),
    ("stream.usage", "failed", swapped(rb'"total_tokens":', b'"total_tokens":1'), "and their sum"),
    ("stream.usage-unasked", "failed", with_usage, "choices in every chunk"),
    ("stream.done", "failed", swapped(DONE, b""), "expected [DONE] at the end; came {"),
    ("stream.done", "failed", swapped(DONE, b"data: [DONE]\n\ndata: [DONE]\n\n"), "nothing after [DONE]"),
    ("stream.done", "failed", lambda call, answer: None, "came a connection that was cut"),
    ("stream.flow", "failed", untouched, "at once, after 0."),
    ("stream.silence", "failed", first_only, "through 0.5 s of silence; came an end after 0."),
]  # fmt: skip


@behind_each(FAULTS)
async def test_what_is_wrong_is_found(
    suffer: Suffer, check: str, result: str, fault: Fault, told: str
) -> None:
    is_slow = check in ("stream.flow", "stream.silence")
    more = ("--model", "echo", "--silence", "0.5") if is_slow else ()
    found, said = (await suffer(check, fault, *more))[check]
    assert found == result
    assert told in said


def test_every_check_is_seen_to_fail() -> None:
    assert {check for check, _, _, _ in FAULTS} == {name for name, _ in CHECKS}


async def test_what_passes_pieces_on_lets_streams_flow(suffer: Suffer) -> None:
    found = await suffer("stream.flow,stream.silence", None, "--model", "echo", "--silence", "0.9")
    assert found["stream.flow"][0] == "ok"
    result, told = found["stream.silence"]
    assert result == "ok"
    assert re.fullmatch(r"0\.9 s, with [2-4] comments against the silence", told)


async def test_a_model_that_is_too_fast_tells_nothing(suffer: Suffer) -> None:
    found = await suffer("stream.flow,stream.silence", untouched, "--silence", "1")
    assert found["stream.flow"][0] == "skipped"
    assert "too fast to tell" in found["stream.flow"][1]
    assert found["stream.silence"] == ("skipped", "only the gateway's own model, echo, is silent when asked")


async def test_what_is_compressed_is_looked_at_all_the_same(suffer: Suffer) -> None:
    found = await suffer("stream", compressed)
    assert {name for name, (result, _) in found.items() if result == "failed"} == {"stream.compression"}


async def test_few_events_tell_nothing(suffer: Suffer) -> None:
    assert "too few to tell" in (await suffer("stream.flow", first_only))["stream.flow"][1]


async def test_a_stream_that_is_refused_fails_every_check_but_asks_once(suffer: Suffer) -> None:
    calls = []

    def refuse(call: Call, answer: Answer) -> Answer:
        calls.append(call.target)
        return Changed(answer)(status=500)

    found = await suffer("stream.type,stream.framing,stream.done", refuse)
    assert [result for result, _ in found.values()] == ["failed"] * 3
    assert calls.count("/v1/chat/completions") == 1
