"""Limits on the command line: set, shown with what is used, listed, cleared."""

import re

import pytest

from tests.cli.conftest import Ask, Run


def test_limits_are_set_shown_listed_and_cleared(ask: Ask, run: Run) -> None:
    assert ask("limits", "list")["data"] == []
    put = ask("limits", "set", "user", "alice", "tokens_per_day=5000", "requests_per_minute=2")
    assert put["source"] == "admin"
    ask("limits", "set", "default", "requests_per_minute=60")
    listed = ask("limits", "list")["data"]
    assert [(row["scope"], row["id"]) for row in listed] == [("default", "default"), ("user", "alice")]
    shown = ask("limits", "show", "user", "alice")
    assert shown["effective"] == {"requests_per_minute": 2, "tokens_per_day": 5000}
    assert shown["standings"] == [
        {"limit": "requests_per_minute", "most": 2, "used": None},
        {"limit": "tokens_per_day", "most": 5000, "used": 0},
    ]
    code, said = run("limits", "show", "user", "alice")
    assert code == 0
    assert "only the running gateway knows" in said
    assert "Nothing is limited" in run("limits", "show", "project", "p")[1]
    assert ask("limits", "clear", "user", "alice")["effective"] == {"requests_per_minute": 60}
    assert "everybody" in run("limits", "clear", "default")[1]
    assert ask("limits", "list")["data"] == []


def test_ids_of_keys_are_told_apart(ask: Ask, run: Run) -> None:
    key = ask("keys", "create", "--user", "alice", "--name", "workshop", "--limit", "tokens_per_day=5")
    ask("projects", "create", "lab", "--name", "The lab", "--limit", "tokens_per_day=6")
    ask("limits", "set", "model", "echo", "concurrent_requests=7")
    said = run("limits", "list")[1]
    assert f"{key['id']}  'workshop' of alice" in said
    assert "The lab" in said
    assert re.search(r"active +all +- +tokens_per_day 5", run("keys", "list")[1])


def test_a_user_who_is_made_by_it_is_spoken_of(run: Run) -> None:
    for_alcie = ("limits", "set", "user", "alcie", "tokens_per_day=5000")
    assert "There was no user alcie yet" in run(*for_alcie)[1]
    assert "no user" not in run(*for_alcie)[1]


@pytest.mark.parametrize(
    "words",
    [("set", "team", "x", "tokens_per_day=1"), ("set", "user", "alice"), ("set", "user", "alice", "tokens=1"),
     ("set", "user", "alice", "tokens_per_day"), ("set", "user", "alice", "tokens_per_day=-1"),
     ("show", "user")],
)  # fmt: skip
def test_what_cannot_be_is_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    assert run("limits", *words)[0] == 2


def test_a_key_that_there_is_not(run: Run) -> None:
    assert run("limits", "set", "key", "nobody", "tokens_per_day=1")[0] == 1
