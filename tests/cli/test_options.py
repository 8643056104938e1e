from pathlib import Path

import pytest

from llmgateway.cli.commands import parser
from llmgateway.cli.options import option_of, overrides_of, settings_of
from llmgateway.settings import SETTINGS


def test_every_setting_is_an_option_of_its_own() -> None:
    options = {option_of(setting.name) for setting in SETTINGS}
    assert len(options) == len(SETTINGS)
    assert {"--data-dir", "--port", "--redis-url", "--llm-default-url"} <= options


def test_settings_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for command in ("serve", "check"):
        with pytest.raises(SystemExit):
            parser().parse_args([command, "--help"])
        told[command] = capsys.readouterr().out
    assert "--redis-url" in told["serve"]
    assert "settings:" not in told["check"]
    assert "llmgateway serve --help" in " ".join(told["check"].split())


def test_options_go_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGATEWAY_PORT", "1111")
    monkeypatch.setenv("LLMGATEWAY_HOST", "127.0.0.2")
    words = ["serve", "--port", "2222", "--data-dir", str(tmp_path)]
    settings = settings_of(parser().parse_args(words))
    assert (settings.port, settings.host) == (2222, "127.0.0.2")


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 40 + "\n")
    secret.chmod(0o600)
    words = ["serve", "--admin-key-file", str(secret), "--data-dir", str(tmp_path)]
    arguments = parser().parse_args(words)
    assert overrides_of(arguments) == {"ADMIN_KEY_FILE": str(secret), "LLMGATEWAY_DATA_DIR": str(tmp_path)}
    admin_key = settings_of(arguments).admin_key
    assert admin_key is not None
    assert admin_key.reveal() == "x" * 40
