from pathlib import Path

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
