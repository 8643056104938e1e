"""Multipart forms: the model's name and `stream`, found without taking the form apart; all else passes
unseen."""

from typing import Any

from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from llmgateway.domain.errors import InvalidRequest, UnsupportedMedia

MAX_VALUE = 1024  # bytes of a field that the gateway reads
MAX_PARTS = 200


class Form(Struct, frozen=True):
    """`model_at`: where the model's name begins and ends in the body."""

    model: str
    model_at: tuple[int, int]
    stream: bool


def read_form(body: bytes, content_type: bytes) -> Form:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise UnsupportedMedia("This endpoint takes a multipart/form-data body with a boundary.")
    reader = _FieldReader(body)
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise InvalidRequest("The form cannot be read.") from None
    return reader.form()


class _FieldReader:
    """Notes where the values of the fields of interest stand, as the parser passes over the body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._name = b""
        self._header = b""
        self._parts = 0
        self._value: tuple[int, int] | None = None
        self._found: dict[bytes, tuple[int, int]] = {}
        self._disposition = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        self._header, self._disposition, self._value = b"", b"", None
        self._name = b""

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition += data[start:end]

    def _on_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._disposition)
            self._name = b"" if b"filename" in options else options.get(b"name", b"")
        self._header = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name in (b"model", b"stream"):
            self._value = (self._value[0] if self._value else start, end)

    def _end(self) -> None:
        if self._value is not None:
            if self._name in self._found:
                raise InvalidRequest(
                    f"The field '{self._name.decode()}' stands twice in the form.", param=self._name.decode()
                )
            self._found[self._name] = self._value

    def form(self) -> Form:
        if b"model" not in self._found:
            raise InvalidRequest("You must say which 'model' to use.", param="model")
        return Form(
            self._text(b"model"),
            self._found[b"model"],
            b"stream" in self._found and self._text(b"stream").lower() in ("true", "1"),
        )

    def _text(self, name: bytes) -> str:
        start, end = self._found[name]
        try:
            if end - start > MAX_VALUE:
                raise InvalidRequest(f"The field '{name.decode()}' is too long.", param=name.decode())
            return self._body[start:end].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"The field '{name.decode()}' is not UTF-8.", param=name.decode()) from None
