import pytest

from llmgateway.domain.errors import InvalidRequest
from llmgateway.portal.form import MOST_FIELDS, Form, form_of


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
