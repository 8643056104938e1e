"""The command as operators type it."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from llmgateway.cli import main
from llmgateway.cli.conform.command import CHECKS
from tests.cli.conform.conftest import Suffer
from tests.lab.client import Answer
from tests.lab.exchange import Call
from tests.lab.gateway import Gateway
from tests.lab.ingress import Changed, Ingress
from tests.lab.processes import free_port

Conform = Callable[..., Any]
SKIPPED = {"stream.silence", "passage.tls", "errors.come-again"}


async def test_a_gateway_conforms(conforming: tuple[Gateway, str], conform: Conform) -> None:
    code, said = await conform("--base-url", conforming[0].base_url, "--json")
    found = json.loads(said)
    results = {row["check"]: row["result"] for row in found["data"]}
    assert results == {name: "skipped" if name in SKIPPED else "ok" for name, _ in CHECKS}, said
    assert (code, found["is_fine"], found["model"]) == (0, True, "echo")
    assert found["requests"] < 50
    assert 0 < found["tokens"]["prompt"] + found["tokens"]["completion"] < 100
    assert conforming[1] not in said
    assert conforming[1] not in conforming[0].output()


async def test_a_table_tells_people(conforming: tuple[Gateway, str], conform: Conform) -> None:
    code, said = await conform("--base-url", f"{conforming[0].base_url}/", "--only", "models,errors.path")
    assert code == 0
    lines = said.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["models.list", "ok"], ["models.retrieve", "ok"], ["models.unknown", "ok"], ["errors.path", "ok"],
    ]  # fmt: skip
    assert lines[-1] == "All is well. 4 requests, 0 tokens of echo, as far as it told."


async def test_one_failure_is_trouble(conforming: tuple[Gateway, str], conform: Conform) -> None:
    code, said = await conform("--base-url", conforming[0].url, "--only", "models.list")
    assert code == 1
    assert "1 of 1 check failed." in said
    assert "; base URLs end in /v1" in said


async def test_nothing_there_is_trouble_and_told_once(conform: Conform) -> None:
    code, said = await conform("--base-url", f"http://127.0.0.1:{free_port()}/v1", "--only", "models")
    assert code == 1
    assert said.count("Connection refused") == 1
    assert said.count("nothing answers there") == 3


async def test_without_a_model_calls_are_skipped(conforming: tuple[Gateway, str], conform: Conform) -> None:
    def empty(call: Call, answer: Answer) -> Answer:
        return Changed(answer)(body=b'{"object":"list","data":[]}')

    async with Ingress(conforming[0].url, empty) as ingress:
        code, said = await conform("--base-url", ingress.base_url, "--only", "models.list,chat,stream.done")
    assert code == 1
    assert said.count("no model is known; name one with --model") == 3
    assert "tokens of no model" in said


async def test_a_key_that_is_said_again_is_not_shown(suffer: Suffer, conforming: tuple[Gateway, str]) -> None:
    def says_it(call: Call, answer: Answer) -> Answer:
        """Where it would be cut in the middle, too."""
        key = (call.header("authorization") or "").encode()
        return Changed(answer)(status=500, body=b"x" * 70 + key * 5)

    found = await suffer("models", says_it)
    said = json.dumps(found)
    assert conforming[1][:20] not in said
    assert "***" in said


KEY = ["--key", "k"]
URL = ["--base-url", "http://127.0.0.1:9/v1"]
HTTPS = ["--base-url", "https://127.0.0.1:9/v1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*KEY, "--base-url", "ftp://127.0.0.1"], "must be a URL such as"),
        ([*KEY, "--base-url", "http://[::1"], "is no URL"),
        ([*KEY, "--base-url", "http://u:p@127.0.0.1/v1"], "neither a query nor a user"),
        ([*KEY, "--base-url", "http://127.0.0.1/v1?x=1"], "neither a query nor a user"),
        ([*URL, "--key", "not a key"], "The key is empty, or holds spaces"),
        ([*URL, "--key-file", "/nowhere/key"], "cannot be read: No such file"),
        ([*URL, *KEY, "--only", "weather"], "no check 'weather', only: models, chat"),
        ([*HTTPS, *KEY, "--ca", "/nowhere/ca"], "/nowhere/ca holds no certificates"),
    ],
)
def test_wrong_usage_is_2(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert "not a key" not in said


@pytest.mark.parametrize("words", [KEY, URL, [*URL, *KEY, "--key-file", "f"], [*URL, *KEY, "--timeout=-1"]])
def test_what_is_missing_or_too_much_is_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["conform", *words])
    assert ended.value.code == 2


@pytest.mark.parametrize("way", ["file", "input"])
def test_the_key_need_not_stand_in_the_command(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("the-key\n")
    monkeypatch.setattr("sys.stdin", StringIO("the-key\n"))
    words = ["--key-file", str(tmp_path / "key")] if way == "file" else ["--key", "-"]
    url = f"http://127.0.0.1:{free_port()}/v1"
    assert main(["conform", "--base-url", url, *words, "--only", "models.list"]) == 1
    assert "the-key" not in capsys.readouterr().out
