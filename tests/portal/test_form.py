import pytest
from starlette.requests import Request
from starlette.types import Message

from llmgateway.domain.errors import InvalidRequest, TooLarge, UnsupportedMedia
from llmgateway.portal.form import MOST_FIELDS, Form, form_of, read_form


def test_fields_as_they_were_typed() -> None:
    form = form_of(b"name=+Alice+%C3%A4+&models=a&models=b&empty=&password=+x+")
    assert (form.text("name"), form.raw("password"), form.text("missing")) == ("Alice ä", " x ", "")
    assert form.all("models") == ["a", "b"]
    assert (form.has("empty"), form.has("missing")) == (True, False)


@pytest.mark.parametrize(("written", "number"), [("", None), (" ", None), ("5", 5), ("10 000", 10_000)])
def test_whole_numbers(written: str, number: int | None) -> None:
    assert Form([("n", written)]).whole("n") == number


@pytest.mark.parametrize("written", ["-1", "1.5", "x", "٣", "1e3", "9" * 16, "0x1"])
def test_what_is_no_whole_number(written: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Form([("n", written)]).whole("n")
    assert refused.value.param == "n"


@pytest.mark.parametrize("body", [b"\xff=1", b"a=%ff", b"&".join(b"a=1" for _ in range(MOST_FIELDS + 1))])
def test_what_cannot_be_read(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        form_of(body)


def request_of(kind: str, body: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind.encode())]}, receive)


async def test_s_in_10_forms_are_taken_as_forms_only() -> None:
    form = await read_form(request_of("application/x-www-form-urlencoded; charset=utf-8", b"a=1"))
    assert form.text("a") == "1"
    for kind in ("", "text/plain", "application/json", "multipart/form-data; boundary=x"):
        with pytest.raises(UnsupportedMedia):
            await read_form(request_of(kind, b"a=1"))


async def test_s_in_08_a_form_has_a_size() -> None:
    kind = "application/x-www-form-urlencoded"
    assert (await read_form(request_of(kind, b"a=" + b"x" * 98), most=100)).text("a")
    with pytest.raises(TooLarge):
        await read_form(request_of(kind, b"a=" + b"x" * 99), most=100)
