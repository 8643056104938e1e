"""Forms: the model's name is found where it stands, and nothing else is touched."""

import pytest

from llmgateway.domain.errors import InvalidRequest, UnsupportedMedia
from llmgateway.edge.forms import MAX_PARTS, MAX_VALUE, read_form

TYPE = b"multipart/form-data; boundary=frontier"


def part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--frontier--\r\n"


def test_the_model_is_found_where_it_stands() -> None:
    audio = part("file", b"\x00\xff model \r\n--fronti", '; filename="a.wav"\r\nContent-Type: audio/wav')
    body = form(audio, part("model", b"whisper-1"), part("stream", b"true"))
    found = read_form(body, TYPE)
    assert (found.model, found.stream) == ("whisper-1", True)
    start, end = found.model_at
    assert body[start:end] == b"whisper-1"
    assert body[:start].endswith(b'name="model"\r\n\r\n')


def test_a_file_that_is_called_model_is_no_model() -> None:
    body = form(part("model", b"evil", '; filename="model"'), part("model", b"real"))
    assert read_form(body, TYPE).model == "real"


def test_no_stream_unless_asked_for() -> None:
    assert not read_form(form(part("model", b"m")), TYPE).stream
    assert not read_form(form(part("model", b"m"), part("stream", b"false")), TYPE).stream


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (form(part("prompt", b"x")), "model"),
        (form(part("model", b"")), "model"),
        (form(part("model", b"a"), part("model", b"b")), "model"),
        (form(part("model", b"\xff\xfe")), "model"),
        (form(part("model", b"x" * (MAX_VALUE + 1))), "model"),
        (form(*(part("f", b"") for _ in range(MAX_PARTS + 1))), None),
        (b"", None),
        (b"nothing of a form", None),
    ],
    ids=["missing", "empty", "twice", "not UTF-8", "long", "many parts", "nothing", "no form"],
)
def test_forms_that_are_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_form(body, TYPE)
    assert param is None or refused.value.param == param


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/json",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/mixed; boundary=frontier",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b"",
    ],
)
def test_s_prx_21_what_is_no_form(content_type: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        read_form(form(part("model", b"m")), content_type)
