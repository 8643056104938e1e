"""A stream on its way: the same bytes out, and what they say kept on the side."""

import json
from typing import Any

import pytest

from llmgateway.domain.call import Tokens
from llmgateway.domain.endpoints import ENDPOINTS
from llmgateway.domain.errors import UpstreamFailed
from llmgateway.edge.errors import status_of
from llmgateway.providers.openai_stream import OpenAIStream
from llmgateway.wire.sse import KEEPALIVE, MAX_EVENT

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def stream(**more: Any) -> OpenAIStream:
    return OpenAIStream(
        **{
            "choices": 1,
            "says_done": True,
            "last_events": (),
            "hides_usage": True,
            "strips_usage": False,
            **more,
        }
    )


def event(value: object, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}{end}".encode()


def chunk(
    text: str | None = None, *, index: int = 0, finish: str | None = None, **more: Any
) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


SAID = event(chunk("Hej 👋\u2028")) + event(chunk(" you", usage=None)) + event(chunk(finish="stop"))


def test_bytes_pass_and_the_last_word_is_kept_back() -> None:
    reader = stream()
    assert reader.feed(SAID + DONE) == SAID
    assert reader.is_done
    assert reader.last == DONE
    assert reader.text() == "Hej 👋\u2028 you"


@pytest.mark.parametrize("hides", [True, False])
def test_r_acc_13_the_chunk_that_holds_nothing_but_usage(hides: bool) -> None:
    only = event({"id": "c", "choices": [], "usage": USAGE})
    reader = stream(hides_usage=hides)
    assert reader.feed(SAID + only + DONE) == (SAID if hides else SAID + only)
    assert reader.tokens == Tokens(9, 4)


def test_usage_that_rides_on_a_chunk_with_words_stays() -> None:
    riding = event(chunk("x", usage=USAGE))
    reader = stream()
    assert reader.feed(riding) == riding
    assert reader.tokens == Tokens(9, 4)


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (
            b'{"id":"c","choices":[{"index":0}],"usage":{"prompt_tokens":9}}',
            b'{"id":"c","choices":[{"index":0}]}',
        ),
        (b'{"usage": {"prompt_tokens": 9}, "x":"\\u00e9 \\"usage\\""}', b'{ "x":"\\u00e9 \\"usage\\""}'),
        (
            b'{"id":1.50,"usage":{"prompt_tokens":9},"x":[{"usage":{"prompt_tokens":9}}]}',
            b'{"id":1.50,"x":[{"usage":{"prompt_tokens":9}}]}',
        ),
    ],
)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_r_acc_13_usage_that_only_we_asked_for_is_taken_out_of_every_chunk(
    sent: bytes, left: bytes, end: bytes
) -> None:
    reader = stream(strips_usage=True)
    assert reader.feed(b"data: " + sent + end) == b"data: " + left + end
    assert reader.tokens == Tokens(9)


def test_r_fault_15_figures_that_cannot_be_true_do_not_replace_those_that_can() -> None:
    reader = stream()
    reader.feed(event(chunk("x", usage=USAGE)) + event(chunk("y", usage={"prompt_tokens": -1})))
    assert reader.tokens == Tokens(9, 4)


def test_an_error_event_ends_it() -> None:
    reader = stream()
    error = event({"error": {"message": "boom", "type": "server_error", "code": 500}})
    assert reader.feed(SAID[:-1]) + reader.feed(SAID[-1:] + error + event(chunk("after"))) == SAID
    assert reader.error is not None
    assert reader.error.message == "boom"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 400}, 400),
        ({"code": "429"}, 429),
        ({"type": "invalid_request_error"}, 400),
        ({"type": "overloaded_error"}, 503),
        ({"code": 401}, 502),
        ({"code": "odd"}, 502),
        ({"code": "²"}, 502),
        ({"code": "9" * 500}, 502),
        ({"code": "٤٠٠", "type": "not_found_error"}, 404),
        ({"message": "x"}, 502),
    ],
)
def test_an_error_event_is_the_error_it_would_have_been(error: dict[str, Any], status: int) -> None:
    reader = stream()
    reader.feed(event({"error": error}))
    assert reader.error is not None
    assert status_of(reader.error) == status


def test_an_error_that_is_null_is_none() -> None:
    reader = stream()
    fine = event(chunk("x", error=None))
    assert reader.feed(fine) == fine
    assert reader.error is None


def test_words_that_look_like_marks_are_words() -> None:
    reader = stream()
    sly = event(chunk('[DONE] "error": {"usage": {"prompt_tokens": 1}}'))
    assert reader.feed(sly) == sly
    assert (reader.is_done, reader.error, reader.tokens) == (False, None, None)


def test_r_fault_08_a_stream_without_its_last_word_is_whole_if_every_choice_ended() -> None:
    reader = stream(choices=2)
    reader.feed(event(chunk("x", finish="stop")) + event(chunk("y", index=1, finish="length")))
    assert reader.end() == b""
    assert reader.is_done
    half = stream(choices=2)
    half.feed(event(chunk("x", finish="stop")))
    with pytest.raises(UpstreamFailed, match="early"):
        half.end()


def test_r_fault_08_a_second_last_word_is_dropped() -> None:
    reader = stream()
    assert reader.feed(SAID + DONE + DONE + event(chunk("late"))) == SAID


def test_r_fault_08_an_event_without_its_blank_line_is_completed() -> None:
    reader = stream()
    assert reader.feed(event(chunk("x", finish="stop"), end="")) == b""
    assert reader.end() == event(chunk("x", finish="stop"))


@pytest.mark.parametrize("end", ["\r", "\r\n", "\r\n\r", "\n"])
def test_an_event_that_ends_in_half_a_blank_line_is_completed(end: str) -> None:
    reader = stream()
    last = event(chunk("x", finish="stop"), end=end)
    assert reader.feed(last) == b""
    out = reader.end()
    assert out.startswith(last)
    assert out.strip() == last.strip()
    assert reader.is_done


def test_endpoints_without_a_last_word() -> None:
    reader = stream(says_done=False, hides_usage=False)
    end = event(
        {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 2}}}
    )
    delta = event({"type": "response.output_text.delta", "delta": "Hi"})
    assert reader.feed(delta + end) == delta + end
    assert reader.end() == reader.last == b""
    assert (reader.tokens, reader.text()) == (Tokens(3, 2), "Hi")


@pytest.mark.parametrize(
    "odd",
    [
        b": ping\n\n",
        b"event: x\n\n",
        b"data: not json\n\n",
        b"data: [1]\n\n",
        b'data: {"choices":5}\n\n',
        b'data: {"choices":[5,{"delta":{"tool_calls":5}},{"delta":"x"}]}\n\n',
        b'data: {"choices":[{"index":[],"finish_reason":"stop","delta":{"content":5}}]}\n\n',
        b"data: \xff\x00\n\n",
        b"\xef\xbb\xbfdata: {}\n\n",
    ],
)
def test_r_fault_08_what_is_no_chunk_passes_untouched(odd: bytes) -> None:
    reader = stream()
    assert reader.feed(odd + SAID) == odd + SAID
    assert reader.text() == "Hej 👋\u2028 you"


def test_r_acc_14_tool_calls_and_reasoning_are_counted_too() -> None:
    reader = stream()
    call = {"index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}
    reader.feed(event({"choices": [{"index": 0, "delta": {"reasoning": "hm ", "tool_calls": [call]}}]}))
    reader.feed(event({"choices": [{"index": 0, "text": "old", "finish_reason": "stop"}]}))
    assert reader.text() == 'hm f{"a":1}old'
    assert reader.said == len(reader.text())


def test_a_long_stream_is_kept_as_its_words_only() -> None:
    reader = stream()
    for number in range(5000):
        reader.feed(event(chunk(f"{number} ")))
    assert reader.text() == "".join(f"{number} " for number in range(5000))


def test_r_fault_09_an_event_without_end_is_refused() -> None:
    reader = stream()
    with pytest.raises(UpstreamFailed, match="cannot be relayed"):
        reader.feed(b"x" * (MAX_EVENT + 1))


# --- endpoints without [DONE]

RESPONSES = ENDPOINTS["/v1/responses"].last_events


def response_event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


BEGUN = response_event("response.created", response={}) + response_event(
    "response.output_text.delta", delta="Hej"
)


@pytest.mark.parametrize("kind", RESPONSES)
def test_a_response_is_whole_when_it_says_how_it_ended(kind: str) -> None:
    reader = stream(says_done=False, last_events=RESPONSES)
    last = response_event(kind, response={"status": "x"})
    assert reader.feed(BEGUN + last) == BEGUN + last
    assert (reader.end(), reader.last, reader.text()) == (b"", b"", "Hej")


@pytest.mark.parametrize(
    "kind",
    ["output_text", "function_call_arguments", "reasoning_text", "reasoning_summary_text", "refusal",
     "custom_tool_call_input"],
)  # fmt: skip
def test_r_acc_02_all_that_a_response_says_is_counted(kind: str) -> None:
    reader = stream(says_done=False, last_events=RESPONSES)
    reader.feed(response_event(f"response.{kind}.delta", delta="Hej") * 3)
    reader.feed(response_event("response.audio.delta", delta="UklGR") + response_event("response.x.delta"))
    assert reader.text() == "HejHejHej"


def test_a_response_that_just_stops_was_cut() -> None:
    reader = stream(says_done=False, last_events=RESPONSES)
    assert reader.feed(BEGUN) == BEGUN
    with pytest.raises(UpstreamFailed) as cut:
        reader.end()
    assert cut.value.reason == "cut"


def test_a_stream_without_any_last_word_ends_where_it_ends() -> None:
    reader = stream(says_done=False)
    assert reader.feed(BEGUN) == BEGUN
    assert reader.end() == b""


# --- while nothing comes


@pytest.mark.parametrize("line", [b"id: 7\n", b"id:7\r\n", b"id\n"])
def test_after_an_id_the_comment_ends_no_event(line: bytes) -> None:
    reader = stream()
    reader.feed(SAID)
    assert reader.pulse == KEEPALIVE
    reader.feed(line + event(chunk("x")))
    assert reader.pulse == b": keep-alive\n"


def test_what_only_looks_like_an_id_is_none() -> None:
    reader = stream()
    reader.feed(event(chunk("\nid: 7\n")) + b"identity: 1\ndata: {}\n\n" + b": id: 7\n\n")
    assert reader.pulse == KEEPALIVE
