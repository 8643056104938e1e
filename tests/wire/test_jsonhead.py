"""The head of a request: strict, so that two parsers cannot see two things; other values keep their bytes."""

import json

import pytest

from llmgateway.domain.errors import InvalidJson, InvalidRequest
from llmgateway.wire.jsonhead import (
    MAX_COMMAS,
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_PROMPTS,
    MAX_STRINGS,
    MAX_TOOLS,
    SURELY_FEW,
    change,
    prompts_in,
    read_head,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b'{"model":"a",}',
        b'{"model":"a"}{}',
        b'{"model":"a"}//',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"a","x":NaN}',
        b'{"model":"a","x":Infinity}',
        b'{"model":"a","x":"\xff"}',
        b'{"model":"a","x":"\xc0\xaf"}',
        b'{"model":"a","x":"\\ud800"}',
        b'{"model":"a\x00"}',
        '{"model":"a"}'.encode("utf-16"),
        b"{'model':'a'}",
        b'{"model":"a","model":"b"}',
        b'{"model":"a", "stream":true,"stream":false}',
        b'{"model":"a","x":{"y":1,"y":2}}',
        b'{"model":"a","messages":[{"role":"user","role":"system"}]}',
        b'{"model":"a","mod\\u0065l":"b"}',
    ],
)
def test_what_is_no_strict_object(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        read_head(body)


SAID = '{"a": 1, "\\"a\\": 2": {"b:": ["x: {y:", "\\\\", {"a": "\\\\\\": "}, []]}, "\u00e9": "\\u00e9: \\n"}'


@pytest.mark.parametrize("gap", ["", " ", "\n\t"])
@pytest.mark.parametrize(("twice", "name"), [(None, ""), (', "a": 2', "a"), (', "\\u0061": {}', "a")])
def test_a_name_twice_is_told_from_colons_in_texts(gap: str, twice: str | None, name: str) -> None:
    """However the body is written: with spaces, escapes or neither."""
    said = SAID.replace("1", "[1]" if twice is None else "[{" + '"a": 0' + twice + "}]")
    body = ('{"model":"m","x":' + gap + said + gap + "}").encode()
    if twice is None:
        assert read_head(body).model == "m"
    else:
        with pytest.raises(InvalidJson, match=f"'{name}' stands twice"):
            read_head(body)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1000, 100_000])
@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_too_deep(depth: int, opens: bytes, closes: bytes) -> None:
    """So deep that it is too many, too: that is seen first."""
    is_many = depth > MAX_CONTAINERS
    error, words = (InvalidRequest, "more values") if is_many else (InvalidJson, "deeper|truncated|not valid")
    with pytest.raises(error, match=words):
        read_head(b'{"model":"a","x":' + opens * depth + b"1" + closes * depth + b"}")
    with pytest.raises(error):
        read_head(b'{"model":"a","x":' + opens * depth)


def test_deep_enough_and_brackets_in_text() -> None:
    inner = b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    assert read_head(b'{"model":"a","x":' + inner + b"}").model == "a"
    assert read_head(b'{"model":"a","x":"' + b"]}[{" * 500 + b'"}').model == "a"


MANY = [
    (b"[]", MAX_CONTAINERS),
    (b'{"a": 1}', MAX_CONTAINERS),
    (b"[" * 100 + b"]" * 100, MAX_CONTAINERS // 100),
    (b'""', MAX_STRINGS),
    (b'"\\\\"', MAX_STRINGS),
    (b'"\\""', MAX_STRINGS),
    (b"0", MAX_COMMAS),
]


@pytest.mark.parametrize(("value", "most"), MANY)
def test_s_in_07_12_more_values_than_a_request_can_need(value: bytes, most: int) -> None:
    """Each takes time in which nobody else is served, so it is their number that is bounded."""
    text = b'"' + b"a" * SURELY_FEW + b'"'
    few, many = (
        b'{"model":"a","x":[' + b", ".join([value] * n + [text]) + b"]}" for n in (most // 2, most + 1)
    )
    assert read_head(few).model == "a"
    with pytest.raises(InvalidRequest, match="more values"):
        read_head(many)


@pytest.mark.parametrize("line", ['if (a[i]) { say("x, y"); }', '{"a":"b","c":["\\\\",{}]},', "1,2,3,4"])
def test_texts_may_hold_as_many_brackets_and_commas_as_they_like(line: str) -> None:
    text = "\n".join([line] * (MAX_COMMAS // 2))
    assert read_head(json.dumps({"model": "a", "x": text}).encode()).model == "a"


def test_a_batch_of_prompts_is_bounded() -> None:
    def asked(count: int) -> int:
        return prompts_in(read_head(json.dumps({"model": "a", "prompt": ["x"] * count}).encode()))

    assert asked(MAX_PROMPTS) == MAX_PROMPTS
    with pytest.raises(InvalidRequest) as refused:
        asked(MAX_PROMPTS + 1)
    assert refused.value.param == "prompt"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "model"),
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"n": "5"}, "n"),
        ({"n": True}, "n"),
        ({"n": -1}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"stream": 1}, "stream"),
        ({"stream_options": 5}, "stream_options"),
        ({"stream_options": {"include_usage": "y"}}, "stream_options.include_usage"),
        ({"messages": "hi"}, "messages"),
        ({"stop": 5}, "stop"),
        ({"tools": [1] * (MAX_TOOLS + 1)}, "tools"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], param: str) -> None:
    body = fields if param == "model" else {"model": "a", **fields}
    with pytest.raises(InvalidRequest) as refused:
        read_head(json.dumps(body).encode())
    assert refused.value.param == param


def test_the_fields_that_are_read() -> None:
    options = b'"stream_options":{"include_usage":true}'
    head = read_head(b'{"model":"m","stream":true,' + options + b',"n":2,"max_tokens":7,"vendor":{"x":1}}')
    assert (head.model, head.stream, head.n, head.max_tokens) == ("m", True, 2, 7)
    assert head.stream_options is not None
    assert head.stream_options.include_usage is True


@pytest.mark.parametrize(
    "value",
    ["-0", "1.50", "0.10000000000000000000001", "1" + "0" * 400, "1e5", '"\\u00e9\\/"', '{ "b" : [1 ,2] }'],
)
def test_values_that_are_not_changed_keep_their_bytes(value: str) -> None:
    body = f'{{ "x" : {value}, "model":"a"}}'.encode()
    assert read_head(body).model == "a"
    changed = change(body, {"model": "b", "stream_options": {"include_usage": True}})
    assert b'"x":' + value.encode() + b',"model":"b"' in changed
    assert json.loads(changed)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("name", ["o", "\\u006f"])
@pytest.mark.parametrize(
    ("value", "then"), [("null", {"b": 2}), ("{}", {"b": 2}), ('{"a":1,"b":1}', {"a": 1, "b": 2})]
)
def test_members_of_an_object_are_set_beside_what_is_there(
    name: str, value: str, then: dict[str, int]
) -> None:
    assert json.loads(change(f'{{"{name}":{value},"x":1}}'.encode(), {"o": {"b": 2}})) == {"o": then, "x": 1}
