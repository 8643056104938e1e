"""The request that goes up, and what an answer with an error status means."""

import json

import pytest

from llmgateway.domain.call import Ask
from llmgateway.domain.catalog import Target
from llmgateway.domain.errors import UpstreamError, UpstreamFailed, UpstreamRefused
from llmgateway.edge.errors import status_of
from llmgateway.providers.openai import MAX_RETRY_AFTER, OpenAI

CHAT = "/v1/chat/completions"
DIALECT = OpenAI()


def target(**more: object) -> Target:
    return Target(**{"url": "http://a:1/v1", "model": "m", **more})  # type: ignore[arg-type]


def ask(body: str, **more: object) -> Ask:
    fields: dict[str, object] = {
        "endpoint": CHAT,
        "model": "m",
        "stream": False,
        "body": body.encode(),
        **more,
    }
    return Ask(**fields)  # type: ignore[arg-type]


def test_a_request_that_needs_nothing_goes_up_in_its_own_bytes() -> None:
    body = '{ "model": "m", "temperature": 0.10000000000000000000001, "vendor": {"é": [1e5]} }'
    request = DIALECT.request(ask(body), target(), "id-1")
    assert request.body == body.encode()
    assert (request.path, request.request_id) == ("/chat/completions", "id-1")
    wants = '{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
    assert DIALECT.request(ask(wants, stream=True, wants_usage=True), target(), "i").body == wants.encode()


def test_r_acc_13_a_stream_is_always_asked_for_its_usage() -> None:
    body = '{"model":"m","stream":true,"stream_options":{"include_obfuscation":false},"n":2}'
    sent = json.loads(DIALECT.request(ask(body, stream=True), target(), "i").body)
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert sent["n"] == 2


def test_endpoints_that_know_no_stream_options_are_not_given_any() -> None:
    body = '{"model":"m","stream":true,"input":"x"}'
    sent = DIALECT.request(ask(body, stream=True, endpoint="/v1/responses"), target(), "i")
    assert sent.body == body.encode()


def test_a_server_that_can_is_asked_for_usage_in_every_chunk() -> None:
    sent = DIALECT.request(
        ask('{"model":"m","stream":true}', stream=True), target(continuous_usage=True), "i"
    )
    assert json.loads(sent.body)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_the_model_gets_the_name_it_has_there() -> None:
    sent = DIALECT.request(ask('{"model":"m","n":1.0}'), target(model="org/Big"), "i")
    assert sent.body == b'{"model":"org/Big","n":1.0}'


def test_a_form_is_changed_at_one_place_only() -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b\r\n\r\n\x00\xff\r\n--b--\r\n'
    at = body.index(b"\r\n\r\nm") + 4
    form = Ask("/v1/audio/transcriptions", "m", False, body, b"multipart/form-data; boundary=b", (at, at + 1))
    sent = DIALECT.request(form, target(model="whisper-1"), "i")
    assert sent.body == body[:at] + b"whisper-1" + body[at + 1 :]
    assert sent.content_type == form.content_type


def refusal(status: int, body: bytes = b"", **headers: str) -> UpstreamError:
    return DIALECT.refusal(
        status, {k.replace("_", "-").encode(): v.encode() for k, v in headers.items()}, body
    )


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (400, 400),
        (404, 404),
        (409, 409),
        (413, 413),
        (422, 422),
        (429, 429),
        (401, 502),
        (403, 502),
        (408, 504),
        (500, 502),
        (501, 502),
        (502, 502),
        (503, 503),
        (504, 504),
        (529, 503),
        (302, 502),
        (418, 502),
    ],
)
def test_r_fault_13_which_status_the_client_sees(status: int, shown: int) -> None:
    assert status_of(refusal(status)) == shown


def test_the_client_s_own_mistakes_are_told_in_the_server_s_words() -> None:
    body = b'{"error":{"message":"too long","type":"x","param":"messages","code":"context_length_exceeded"}}'
    error = refusal(400, body)
    assert isinstance(error, UpstreamRefused)
    assert (error.message, error.param, error.code) == ("too long", "messages", "context_length_exceeded")


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "invalid_value"), (404, "not_found"), (413, "request_too_large"), (429, "rate_limit_exceeded")],
)
def test_numbers_are_no_codes(status: int, code: str) -> None:
    """vLLM has the status there."""
    assert refusal(status, b'{"error":{"message":"x","code":%d}}' % status).code == code
    assert refusal(status, b'{"error":{"message":"x","code":"own_word"}}').code == "own_word"


def test_r_fault_13_the_words_about_our_credential_stay_here() -> None:
    error = refusal(401, b'{"error":{"message":"Incorrect API key provided: sk-secret"}}')
    assert isinstance(error, UpstreamFailed)
    assert (error.code, error.should_retry) == ("upstream_auth", False)
    assert "sk-secret" not in error.message
    assert "<html>" not in refusal(500, b"<html>at /srv/app.py</html>").message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 1.0),
        ("1000000000", MAX_RETRY_AFTER),
        ("-5", 1.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("Sat, 21 Nov 2026 12:00:07 GMT", 7.0),
        ("Sat, 21 Nov 2026 13:00:00 GMT", MAX_RETRY_AFTER),
    ],
)
def test_r_fault_13_how_long_to_wait_is_clamped(value: str, seconds: float | None) -> None:
    assert refusal(429, retry_after=value, date="Sat, 21 Nov 2026 12:00:00 GMT").retry_after == seconds
