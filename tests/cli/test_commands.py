import json

import pytest

from llmgateway import __version__
from llmgateway.cli import main
from llmgateway.cli.commands import parser
from tests.cli.conftest import Run

COMMANDS = [
    "serve", "check", "conform", "keys create", "keys list", "keys revoke", "keys rotate", "users list",
    "users show", "users suspend", "users activate", "users password", "models list", "usage",
    "ledger status", "ledger verify", "ledger replay", "audit verify", "migrate", "version",
    "projects list", "projects show", "projects create", "projects change", "projects end", "projects delete",
    "projects members", "projects add-member", "projects remove-member", "projects keys",
    "announcements list", "announcements show", "announcements create", "announcements change",
    "announcements end", "announcements delete",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*command.split(), "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--data-dir" in said
    assert ("--json" in said) is (command != "serve")


@pytest.mark.parametrize("words", [["nothing"], ["keys"], ["keys", "create"], ["usage", "--nothing"]])
def test_wrong_usage_is_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_nothing_at_all_tells_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "announcements" in capsys.readouterr().err


def test_wrong_settings_are_2_and_all_named(run: Run) -> None:
    code, said = run("version")
    assert code == 0  # asks for none
    code, said = run("keys", "list", "--port", "none", "--log-level", "loud")
    assert code == 2
    assert "LLMGATEWAY_PORT" in said
    assert "LLMGATEWAY_LOG_LEVEL" in said


def test_what_is_not_there_is_1(run: Run) -> None:
    code, said = run("keys", "revoke", "nobodyskey00")
    assert code == 1
    assert "There is no key 'nobodyskey00'" in said


def test_what_cannot_be_is_2(run: Run) -> None:
    assert run("usage", "--by", "weather")[0] == 2


def test_version_says_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == __version__
