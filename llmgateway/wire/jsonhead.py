"""The head of a JSON request: the few fields that the gateway acts on, read strictly, and the only way to
change one.

What was checked here is what the model server reads: a body in which two parsers could see different things
(a name twice in an object, NaN, bytes that are not UTF-8) is refused. An unchanged body goes on in the
client's own bytes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from llmgateway.domain.errors import InvalidJson, InvalidRequest, shown

MAX_DEPTH = 128
MAX_MESSAGES, MAX_TOOLS, MAX_STOPS, MAX_PROMPTS = 20_000, 2_000, 1_000, 2_048
# What a body may be made of. Text may be as long as the body; it is the number of values that takes time: a
# second for each megabyte of brackets, in which nobody else is served.
MAX_STRINGS, MAX_CONTAINERS, MAX_COMMAS = 100_000, 50_000, 500_000
SURELY_FEW = 100_000  # bytes that cannot hold more
SHORT = 4_096  # bytes that are looked through sooner than the values in them

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # exact in every JSON parser behind us
T = TypeVar("T")


class StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Head(Struct):
    """The fields of every OpenAI endpoint that the gateway reads; all others pass unseen."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Count | None = None
    best_of: Count | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    max_output_tokens: Count | None = None
    prompt: Raw = Raw()
    messages: Annotated[list[Raw], Meta(max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[Raw], Meta(max_length=MAX_TOOLS)] | None = None
    stop: Annotated[list[Raw], Meta(max_length=MAX_STOPS)] | str | None = None


_decode_head = msgspec.json.Decoder(Head).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode

_CONTAINERS = frozenset((dict, list))
_AT = re.compile(r" - at `(?P<path>[^`]*)`$")


def read_head(body: bytes) -> Head:
    """Raises InvalidJson where the body is no strict JSON object, InvalidRequest with `param` where a field
    is wrong."""
    return _read(body, _decode_head)


def output_field(body: bytes) -> str:
    """Which member asks for the longest answer: each generation of the API has another name for it."""
    head = _decode_head(body)
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    return max(names, key=lambda name: getattr(head, name) or 0)


def prompts_in(head: Head) -> int:
    """How many answers a completion is asked for at once: several prompts have one each, and a list of
    numbers is one prompt."""
    prompt = bytes(head.prompt).lstrip()
    if not prompt.startswith(b"["):
        return 1
    parts = _decode_list(prompt)
    prompts = sum(bytes(part).lstrip()[:1] in (b'"', b"[") for part in parts) or 1
    if prompts > MAX_PROMPTS:
        raise InvalidRequest(f"A request may have at most {MAX_PROMPTS} prompts.", param="prompt")
    return prompts


def read_object(body: bytes) -> dict[str, Any]:
    """A whole object, by the same rules: for what the gateway answers itself."""
    return _read(body, _decode_object)


def _read(body: bytes, decode: Callable[[bytes], T]) -> T:
    try:
        if len(body) > SURELY_FEW:
            _refuse_many(body)
        found = decode(body)
        _refuse_ambiguity(body)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None
    except msgspec.DecodeError as error:
        raise InvalidJson(f"The request body is not valid JSON: {error}") from None
    except UnicodeDecodeError:
        raise InvalidJson("The request body is not valid UTF-8.") from None
    except RecursionError:
        raise InvalidJson(f"The request body is nested deeper than {MAX_DEPTH} levels.") from None
    return found


def change(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """The same object, which was read before, with these members set, and those of an object beside what is
    there; the values of all others keep their bytes."""
    members: dict[str, Any] = _decode_members(body)
    for name, value in changes.items():
        before = _decode_any(members[name]) if isinstance(value, dict) and name in members else None
        members[name] = {**before, **value} if before else value
    return _encode(members)


def _refuse_many(body: bytes) -> None:
    """Before anything is decoded. Brackets and commas in texts do not count, which is looked at only where
    there are suspiciously many."""
    if _exceeds(body) and (_unescaped(body).count(b'"') > 2 * MAX_STRINGS or _exceeds(_without_texts(body))):
        raise InvalidRequest("The request body has more values than a request can need.")


def _exceeds(body: bytes) -> bool:
    return (
        _found(body, b"{") + _found(body, b"[") > MAX_CONTAINERS
        or (len(body) > 2 * MAX_STRINGS and body.count(b'"') > 2 * MAX_STRINGS)
        or (len(body) > MAX_COMMAS and body.count(b",") > MAX_COMMAS)
    )


def _found(body: bytes, bracket: bytes) -> int:
    """How often, up to one more than may be. What is rare is taken out in a third of the time it takes to
    count it."""
    return len(body) - len(body.replace(bracket, b"", MAX_CONTAINERS + 1))


def _without_texts(body: bytes) -> bytes:
    """Every text as a pair of quotes, where the body is JSON."""
    return b'""'.join(_unescaped(body).split(b'"')[::2])


def _unescaped(body: bytes) -> bytes:
    """The quotes that are left begin and end texts."""
    return body.replace(rb"\\", b"").replace(rb"\"", b"")


def _refuse_ambiguity(body: bytes) -> None:
    """What our own encoder writes has no name twice. In other bodies the names are counted: a colon between
    texts is one, and of two equal ones only one is found."""
    found = _decode_any(body)
    is_ours = _encode(found) == body
    if is_ours and len(body) < SHORT and body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    containers = list(chain.from_iterable(_levels(found)))
    if not is_ours:
        names = sum(len(one) for one in containers if type(one) is dict)
        if names != _without_texts(body).count(b":"):
            json.loads(body, object_pairs_hook=_refuse_duplicates)


def _levels(value: Any) -> Iterator[list[Any]]:
    """All lists and objects by how deep they lie: that costs less than to look for brackets outside of texts.
    Raises RecursionError after MAX_DEPTH levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        yield level
        level = [
            one for outer in level for one in (outer.values() if type(outer) is dict else outer)
            if type(one) in _CONTAINERS
        ]  # fmt: skip
        if not level:
            return
    raise RecursionError


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidJson(f"The name '{shown(name)}' stands twice in one object.", param=shown(name))
            seen.add(name)


def _field_error(message: str) -> InvalidRequest:
    """msgspec says "Expected `int`, got `str` - at `$.n`"; the client is told the field and the same in
    words."""
    at = _AT.search(message)
    text = (message[: at.start()] if at else message).replace("`", "'")
    path = at["path"].removeprefix("$").removeprefix(".") if at else ""
    if "missing required field 'model'" in text:
        return InvalidRequest("You must say which 'model' to use.", param="model")
    if not path:
        return InvalidJson(f"The request body must be a JSON object: {text}.")
    return InvalidRequest(f"Wrong value for '{shown(path)}': {text[0].lower()}{text[1:]}.", param=shown(path))
