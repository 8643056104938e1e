import asyncio
import shlex
import socket
from pathlib import Path

import pytest

from llmgateway.cli.serve import first_key, listen, url_of, welcome
from llmgateway.domain.keys import id_of
from llmgateway.domain.secret import Secret
from llmgateway.settings import Settings, with_secrets
from tests.cli.conftest import Ask, Run


@pytest.fixture
def settings(tmp_path: Path, config: Path) -> Settings:
    return with_secrets(Settings.load({"LLMGATEWAY_DATA_DIR": str(tmp_path / "data")}, config=config))


def test_only_the_very_first_start_makes_a_key(settings: Settings, ask: Ask) -> None:
    key = asyncio.run(first_key(settings))
    assert key is not None
    (listed,) = ask("keys", "list")["data"]
    assert (listed["id"], listed["user"]) == (id_of(key.reveal().encode()), "admin")
    assert asyncio.run(first_key(settings)) is None


def test_a_newcomer_gets_a_line_to_paste(settings: Settings) -> None:
    *_, line = welcome(settings, "http://127.0.0.1:1", Secret("lgw_key"), {})
    words = shlex.split(line)
    assert words[:2] == ["curl", "http://127.0.0.1:1/v1/chat/completions"]
    assert "Authorization: Bearer lgw_key" in words


def test_later_it_says_how_to_make_another_key_here(settings: Settings) -> None:
    lines = welcome(settings, "http://127.0.0.1:1", None, {"LLMGATEWAY_DATA_DIR": "/my data"})
    assert lines[-1].endswith("--data-dir '/my data'")
    assert any(str(settings.data_dir / "admin_key") in line for line in lines)


def test_the_address_is_one_that_can_be_reached() -> None:
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_that_is_taken_is_said_in_words(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = run("serve", "--port", str(taken.getsockname()[1]), "--log-level", "warning")
    assert code == 1
    assert "cannot listen on 127.0.0.1" in said
