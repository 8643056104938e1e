import io
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Ask, Run


def test_users_are_listed_shown_suspended_and_let_in_again(ask: Ask, run: Run) -> None:
    ask("keys", "create", "--user", "alice", "--name", "laptop")
    assert [user["id"] for user in ask("users", "list")["data"]] == ["alice"]
    shown = ask("users", "show", "alice")
    assert [key["name"] for key in shown["keys"]] == ["laptop"]
    assert ask("users", "suspend", "alice")["state"] == "suspended"
    assert ask("users", "list", "--state", "active")["data"] == []
    assert run("keys", "create", "--user", "alice", "--name", "another")[0] == 1
    assert ask("users", "activate", "alice")["state"] == "active"
    assert "laptop" in run("users", "show", "alice")[1]
    assert run("users", "show", "bob")[0] == 1


def test_models_are_listed_with_where_they_come_from(ask: Ask, run: Run, config: Path) -> None:
    config.write_text(
        "models: [{id: m, targets: [{url: 'http://10.0.0.7:8000/v1', credential: hidden-word}]}]\n"
    )
    listed = ask("models", "list")["data"]
    assert [(model["id"], model["source"]) for model in listed] == [("echo", "built-in"), ("m", "settings")]
    code, said = run("models", "list")
    assert code == 0
    assert "http://10.0.0.7:8000/v1" in said
    assert "hidden-word" not in said + str(listed)


def test_an_account_is_ended_after_the_id_was_typed(
    ask: Ask, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("alice", "bob"):
        ask("keys", "create", "--user", user, "--name", "laptop")
    for typed, code in (("", 2), ("bob\n", 2), ("alice\n", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        ended, said = run("users", "forget", "alice")
        assert ended == code
        assert "Type alice to go on" in said
    assert run("users", "show", "alice")[0] == 1
    assert ask("users", "forget", "bob", "--yes") == {"id": "bob", "forgotten": True}
    assert [user["id"][:5] for user in ask("users", "list", "--state", "gone")["data"]] == ["gone:"] * 2
    assert {key["state"] for key in ask("keys", "list")["data"]} == {"revoked"}
    assert run("users", "forget", "carol", "--yes")[0] == 1
    assert run("audit", "verify")[0] == 0


def test_a_password_is_made_and_shown_once(ask: Ask, run: Run) -> None:
    ask("keys", "create", "--user", "alice", "--name", "laptop")
    made = ask("users", "password", "alice")
    assert (made["id"], made["is_new"], made["sessions_ended"]) == ("alice", True, 0)
    code, said = run("users", "password", "alice")
    assert code == 0
    assert "alice has a new password" in said
    assert "shown this once" in said
    shown = re.search(r"^[a-z2-9]{5}(-[a-z2-9]{5}){3}$", said, re.MULTILINE)
    assert shown is not None
    assert shown[0] != made["password"]
    assert run("audit", "verify")[0] == 0


def test_a_password_is_taken_from_the_input(ask: Ask, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("keys", "create", "--user", "alice", "--name", "laptop")
    for typed, code in (("", 2), ("short\n", 2), ("correct horse\r\n", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        ended, said = run("users", "password", "alice", "--stdin")
        assert ended == code, said
        assert "correct horse" not in said
    assert "at least 10" in run("users", "password", "alice", "--stdin")[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("battery staple"))
    assert ask("users", "password", "alice", "--stdin") == {
        "id": "alice", "is_new": False, "sessions_ended": 0,
    }  # fmt: skip


def test_for_whom_no_password_can_be_set(ask: Ask, run: Run, config: Path) -> None:
    code, said = run("users", "password", "bob")
    assert code == 1
    assert "There is no user 'bob'" in said
    ask("keys", "create", "--user", "bob", "--name", "laptop")
    config.write_text("sign_in: {local: false}\n")
    code, said = run("users", "password", "bob")
    assert code == 1
    assert "Local accounts are off" in said
