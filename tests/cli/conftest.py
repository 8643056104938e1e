"""Commands as they are typed, in a data directory of their own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmgateway.cli import main

Run = Callable[..., tuple[int, str]]
Ask = Callable[..., Any]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text("currency: EUR\n")
    return path


@pytest.fixture
def run(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code, and what is printed, complaints too."""

    def run_(*words: str) -> tuple[int, str]:
        code = main([*words, "--data-dir", str(tmp_path / "data"), "--config", str(config)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run_


@pytest.fixture
def ask(run: Run) -> Ask:
    """What a command that is fine says as JSON."""

    def ask_(*words: str) -> Any:
        code, said = run(*words, "--json")
        assert code == 0, said
        return json.loads(said)

    return ask_
