import pytest

from llmgateway.domain.fields import BROKEN
from llmgateway.settings.yaml_tree import tree_of


def test_scalars_stay_what_was_written() -> None:
    complaints: list[str] = []
    text = """
a: 0.10
b: 010
c: 1_000
d: 1:30
e: 2026-01-01
f: true
g: ~
h:
i: "no"
j: 'true'
k: [1.10, {x: y}]
l: |
  two
  lines
m: !!str 5
"""
    assert tree_of(text, "f", complaints) == {
        "a": "0.10",
        "b": "010",
        "c": "1_000",
        "d": "1:30",
        "e": "2026-01-01",
        "f": True,
        "g": None,
        "h": None,
        "i": "no",
        "j": "true",
        "k": ["1.10", {"x": "y"}],
        "l": "two\nlines\n",
        "m": "5",
    }
    assert complaints == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", "a: is given twice; first on line 1 (line 3)"),
        ("models:\n  - {id: a, id: b}\n", "models[0].id: is given twice; first on line 2 (line 2)"),
        (
            "a: no\n",
            "a: no without quotes is a word to some and a boolean to others: "
            'write true or false, or "no" in quotes (line 1)',
        ),
        ("a: [x, On]\n", "a[1]: On without quotes"),
        ("limits: {users: {no: {}}}\n", "limits.users: no without quotes"),
        ("a: {~: 1}\n", "a: has a key that is not a word"),
        ("true: 1\n", "the file: has a key that is not a word"),
        ("? [a]\n: 1\n", "the file: has a key that is not a word"),
        ("a: !!python/object/apply:os.system [x]\n", "a: has the tag tag:yaml.org,2002:python/object"),
        ("a: !secret x\n", "a: has the tag !secret"),
        ("a: !!binary aGk=\n", "a: has the tag tag:yaml.org,2002:binary"),
        ("a: &x [*x]\n", "a[0][0]"),
        ("a: [\n", "f line 2, column 1: "),
        ("a: b: c\n", "f line 1, column 5: mapping values are not allowed here"),
        ("a: 1\n--- \nb: 2\n", "f line 2, column 1: "),
        ("a: *b\n", "f line 1, column 4: found undefined alias"),
        ("a: \x07\n", "f: is not YAML that can be read"),
        ("[" * 5000, "f: is not YAML that can be read"),
    ],
)
def test_what_readers_disagree_about_is_complained_about(text: str, complaint: str) -> None:
    complaints: list[str] = []
    tree_of(text, "f", complaints)
    assert len(complaints) == 1
    assert complaints[0].startswith(complaint)


def test_an_empty_document_is_nothing() -> None:
    assert tree_of("# only words\n", "f", []) is None


def test_a_small_file_cannot_grow_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    complaints: list[str] = []
    tree_of("\n".join(lines), "f", complaints)
    assert len(complaints) == 1
    assert "repeats itself too often" in complaints[0]


def test_aliases_are_taken() -> None:
    assert tree_of("a: &x {n: 1}\nb: *x\n", "f", []) == {"a": {"n": "1"}, "b": {"n": "1"}}


def test_what_was_complained_about_is_broken() -> None:
    assert tree_of("a: off\nb: 1", "f", []) == {"a": BROKEN, "b": "1"}
