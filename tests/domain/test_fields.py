from llmgateway.domain.fields import BROKEN, Fields, fields_of, joined, suggestion
from llmgateway.domain.scalars import text, whole


def test_complaints_are_collected_with_their_paths_and_reading_goes_on() -> None:
    complaints: list[str] = []
    fields = Fields({"port": "x", "name": "a", "sub": {"n": "-1"}, "list": ["b", 5]}, "top[0]", complaints)
    assert fields.take("port", whole(1, 9), 7) == 7
    assert fields.take("name", text, None) == "a"
    assert fields.take("absent", text, None) is None
    assert fields.section("sub").take("n", whole(0, 9), 3) == 3
    assert fields.elements("list", text) == ["b"]
    assert fields.need("id", text, "") == ""
    fields.done()
    assert complaints == [
        "top[0].port: must be a number, not 'x'",
        "top[0].sub.n: must be a whole number from 0 to 9, not '-1'",
        "top[0].list[1]: must be text, not 5",
        "top[0].id: is missing",
    ]


def test_unknown_keys_are_complained_about_with_what_may_have_been_meant() -> None:
    complaints: list[str] = []
    fields = Fields({"alises": [], "xyzzy": 1}, "", complaints)
    fields.items("aliases")
    fields.take("id", text, None)
    fields.done()
    assert complaints == [
        "alises: is unknown; did you mean 'aliases'?",
        "xyzzy: is unknown; known are aliases, id",
    ]


def test_what_was_complained_about_is_not_complained_about_again() -> None:
    complaints: list[str] = []
    fields = Fields({"a": BROKEN, "b": BROKEN, "c": BROKEN, "d": BROKEN}, "", complaints)
    assert fields.need("a", text, "") == ""
    assert fields.take("b", text, "x") == "x"
    assert fields.items("c") == []
    fields.section("d").done()
    fields.done()
    assert complaints == []


def test_wrong_shapes() -> None:
    complaints: list[str] = []
    fields = Fields({"sub": "x", "list": {"a": 1}, "none": None}, "", complaints)
    fields.section("sub")
    assert fields.items("list") == []
    assert fields.items("none") == []
    fields.section("none").done()
    fields_of(["x"], "models[1]", complaints)
    assert complaints == [
        "sub: must be a mapping of names to values, not 'x'",
        "list: must be a list, not a mapping",
        "models[1]: must be a mapping of names to values, not a list",
    ]


def test_paths_of_odd_names() -> None:
    assert joined("limits.models", "org/m.b") == 'limits.models["org/m.b"]'
    assert joined("", "a") == "a"
    assert suggestion("x", []) == ""
