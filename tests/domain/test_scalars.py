from decimal import Decimal

import pytest

from llmgateway.domain.scalars import (
    Filled,
    Wrong,
    credential,
    described,
    flag,
    http_url,
    listed,
    model_name,
    number,
    one_of,
    seconds,
    seconds_or_none_at_all,
    size,
    text,
    whole,
)


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("0.20", "0.20"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (5, "5"),
        (Decimal("0.30"), "0.30"),
        (" 7 ", "7"),
        ("1e3", "1000"),
        (Filled("2"), "2"),
        ("0.5", "0.5"),
        ("0", "0"),
    ],
)
def test_numbers_are_exact(written: object, exact: str) -> None:
    assert number(written) == Decimal(exact)


@pytest.mark.parametrize(
    "written",
    [
        True,
        False,
        None,
        [],
        {},
        "",
        "no",
        "on",
        "010",
        "0o17",
        "0x1f",
        "1_000",
        "1:30",
        ".5",
        "1.",
        "nan",
        "inf",
        "1e999",
        float("nan"),
        float("inf"),
        "١٢",
        "1" * 29,
        "1,5",
    ],
)
def test_what_is_no_number_to_everybody_is_refused(written: object) -> None:
    with pytest.raises(Wrong, match="must be a number"):
        number(written)


def test_a_leading_zero_is_called_by_its_name() -> None:
    with pytest.raises(Wrong, match="leading zeros, not '0644'"):
        whole(0, 1000)("0644")


def test_whole_numbers_have_bounds() -> None:
    read = whole(1, 10)
    assert read("10") == read(10) == read(10.0) == 10
    assert type(read("3")) is int
    for written in ("0", "11", 2.5, "2.5", "-1", "1e99"):
        with pytest.raises(Wrong, match="whole number from 1 to 10"):
            read(written)


def test_durations_are_more_than_nothing() -> None:
    assert seconds("0.5") == 0.5
    assert seconds_or_none_at_all("0") == 0
    assert seconds_or_none_at_all(3) == 3
    for written in ("0", "-1", "604801"):
        with pytest.raises(Wrong, match="more than 0"):
            seconds(written)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("10MiB", 10 << 20),
        ("20MB", 20_000_000),
        ("1048576", 1 << 20),
        (4096, 4096),
        ("1.5 KiB", 1536),
        ("2kb", 2000),
        ("1GiB", 1 << 30),
    ],
)
def test_sizes_have_units(written: object, count: int) -> None:
    assert size(1024, 1 << 30)(written) == count


@pytest.mark.parametrize(
    "written", ["10 apples", "MiB", "", True, 0.5, "1", "2GiB", "1.3333KiB", "-1MB", "010MB"]
)
def test_wrong_sizes_are_refused(written: object) -> None:
    with pytest.raises(Wrong):
        size(1024, 1 << 30)(written)


def test_text_is_what_was_written() -> None:
    assert text(" a b ") == "a b"
    assert type(text(Filled("x"))) is str
    for written in (5, True, None, "", "  ", "a\nb", "a\x00"):
        with pytest.raises(Wrong):
            text(written)
    with pytest.raises(Wrong, match='in quotes: "false"'):
        text(False)


def test_flags_and_choices() -> None:
    assert flag(True) is flag("true") is True
    assert flag("False") is False
    for written in ("yes", "on", 1, "1", None):
        with pytest.raises(Wrong, match="true or false"):
            flag(written)
    assert one_of(("cancel", "drain"))("Drain") == "drain"
    with pytest.raises(Wrong, match="cancel or drain, not 'canel'"):
        one_of(("cancel", "drain"))("canel")


def test_lists_with_commas() -> None:
    assert listed(model_name)(" a, b ,,c") == ("a", "b", "c")
    with pytest.raises(Wrong, match="twice"):
        listed(model_name)("a,a")


@pytest.mark.parametrize(
    "name", ["qwen3-32b", "org/model:latest", "a", "a" * 200, "Qwen_2.5@v1", "..a", "a..b"]
)
def test_model_names(name: str) -> None:
    assert model_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a\tb",
        "a\\b",
        "a?x",
        "a#",
        "a%2f",
        "a;b",
        ".",
        "..",
        "../x",
        "a/../b",
        "a/./b",
        "/a",
        "a/",
        "a//b",
        "a" * 201,
        "modèle",
        "\uff0e\uff0e",
        "a\x7fb",
        5,
        None,
        True,
    ],
)
def test_names_that_would_change_an_address_are_refused(name: object) -> None:
    with pytest.raises(Wrong):
        model_name(name)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://10.0.0.7:8000/v1/", "http://10.0.0.7:8000/v1"),
        ("HTTPS://Models.Example.org", "https://models.example.org"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://h/a%2Fb/v1", "http://h/a%2Fb/v1"),
        ("http://h///", "http://h"),
        ("http://model_server:1/v1", "http://model_server:1/v1"),
    ],
)
def test_addresses(written: str, url: str) -> None:
    assert http_url(written) == url


@pytest.mark.parametrize(
    "written",
    [
        "10.0.0.7:8000",
        "ftp://h/v1",
        "http://",
        "http:///v1",
        "http://user:canary@h/v1",
        "http://user@h",
        "http://h?x=canary",
        "http://h#f",
        "http://h/v1?",
        "http://h:99999/",
        "http://h:0/",
        "http://h:/v1",
        "http://h:canary/",
        "http://[::1/v1",
        "http://h/a/../b",
        "http://h/%2e%2e/b",
        "http://h\\@evil/v1",
        "http://h/a b",
        "http://h/\nx",
        "http://hôte/",
        "file:///etc",
        "http://-h/",
        5,
        None,
        "//h/v1",
    ],
)
def test_wrong_addresses_are_refused_and_not_shown(written: object) -> None:
    with pytest.raises(Wrong) as caught:
        http_url(written)
    assert "canary" not in str(caught.value)


def test_credentials_fit_into_a_header_line() -> None:
    assert credential(Filled("sk-abc")) == "sk-abc"
    for written in ("a b", "a\r\nX-Evil: 1", "schlüssel-canary", "", "***", 5):
        with pytest.raises(Wrong) as caught:
            credential(written)
        assert "canary" not in str(caught.value)


def test_complaints_show_what_was_written_but_nothing_that_was_filled_in() -> None:
    assert described(Filled("canary")) == "***"
    assert described("a\nb") == "'a?b'"
    assert [described(v) for v in (None, True, [1], {"a": 1}, 1.5)] == [
        "null",
        "true",
        "a list",
        "a mapping",
        "1.5",
    ]
