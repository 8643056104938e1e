import json

import pytest

from llmgateway.cli.printing import say_fields, say_rows, shown, table

ROWS = [{"name": "a", "count": 1234, "more": None}, {"name": "bcd", "count": 5, "more": ["x", "y"]}]


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    assert table(ROWS, ("name", "count", "more")).splitlines() == [
        "name  count  more",
        "a     1,234  -",
        "bcd       5  x, y",
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (True, "yes"), (0, "0"), (1.5, "1.5"), ([], "-"), ({"a": 1, "b": None}, "a 1"), ({}, "-")],
)
def test_values_are_said_in_words(value: object, said: str) -> None:
    assert shown(value) == said


def test_rows_as_json_hold_everything(capsys: pytest.CaptureFixture[str]) -> None:
    say_rows(ROWS, ("name",), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"data": ROWS, "next": None}
    say_rows([], ("name",), as_json=False, none="Nothing.")
    assert capsys.readouterr().out == "Nothing.\n"


def test_fields_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    say_fields({"a": 1, "long name": "x"}, as_json=False)
    assert capsys.readouterr().out == "a          1\nlong name  x\n"
