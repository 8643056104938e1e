"""What a request asks, read strictly into a frozen value: fields that are not listed are refused by name."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request

from llmgateway.domain.errors import ClientGone, InvalidRequest, TooLarge, UnsupportedMedia, shown
from llmgateway.domain.fields import suggestion
from llmgateway.wire.jsonhead import read_object

MAX_BODY = 1024 * 1024
# How msgspec says where a value is wrong; should it ever say it in other words, only `param` is poorer.
PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
FIELD = re.compile(r"(?P<what>unknown|required) field `(?P<name>[^`]*)`")

T = TypeVar("T")


def asked_by_query(kind: type[T], request: Request) -> T:
    """A parameter that stands there twice counts for both with a comma between them, as lists are written; an
    empty one is not given."""
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        given[name] = f"{given[name]},{value}" if name in given else value
    return _read(kind, {name: value for name, value in given.items() if value}, strict=False)


async def asked_by_body(kind: type[T], request: Request) -> T:
    """No body at all is an empty object."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Request bodies must not be compressed.")
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise UnsupportedMedia("This endpoint takes a JSON body, not a form.")
    body = await _body(request)
    return _read(kind, read_object(body) if body.strip() else {}, strict=True)


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > MAX_BODY:
                raise TooLarge(f"The request body is larger than {MAX_BODY} bytes.")
            pieces.append(piece)
    except ClientDisconnect:
        raise ClientGone("The client closed the connection before its request was complete.") from None
    return b"".join(pieces)


def _read(kind: type[T], given: Mapping[str, Any], *, strict: bool) -> T:
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        message, param = _in_words(str(error), kind)
        raise InvalidRequest(message, param=param) from None


def _in_words(complaint: str, kind: Any) -> tuple[str, str | None]:
    place, field = PLACE.search(complaint), FIELD.search(complaint)
    path = place["path"] if place else ""
    what = PLACE.sub("", complaint)
    if field is None:
        return (f"{shown(path)}: {shown(what)}." if path else f"{shown(what)}."), path or None
    param = f"{path}.{field['name']}" if path else field["name"]
    if field["what"] == "required":
        return f"{shown(param)} is missing.", param
    known = kind.__struct_encode_fields__ if issubclass(kind, Struct) and not path else ()
    likely = suggestion(field["name"], known)
    return f"{shown(param)} is unknown here{likely}{'' if likely.endswith('?') else '.'}", shown(param)
