"""Every block of code in the README runs as it is printed; only the port is another one."""

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.test_start import Plain
from tests.lab.gateway import Gateway
from tests.lab.node import NODE
from tests.lab.processes import ROOT, absent, clean_environment

pytestmark = pytest.mark.e2e

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
SAID = "Hello, gateway"


class Started(NamedTuple):
    gateway: Plain
    key: str


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    async with Plain(tmp_path) as gateway:
        found = re.search(r"lgw_\w+", gateway.program.output())
        assert found is not None, gateway.program.output()
        yield Started(gateway, found[0])


def block(language: str, word: str) -> str:
    found = [text for kind, text in BLOCKS if kind == language and word in text]
    assert len(found) == 1, f"one {language} block with {word}"
    return str(found[0])


def run(started: Started, command: Sequence[str | Path], cwd: Path) -> str:
    environment = clean_environment(API_KEY=started.key)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(started: Started, text: str) -> str:
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{started.gateway.port}")


async def test_the_curl_line(started: Started, tmp_path: Path) -> None:
    if not shutil.which("curl"):
        absent("curl", "apt-get install curl")
    text = here(started, block("sh", "curl"))
    assert SAID in await asyncio.to_thread(run, started, ["sh", "-ec", text], tmp_path)


async def test_the_python_lines(started: Started, tmp_path: Path) -> None:
    text = here(started, block("python", "OpenAI"))
    assert await asyncio.to_thread(run, started, [sys.executable, "-c", text], tmp_path) == SAID


async def test_the_node_lines(started: Started, node_modules: Path) -> None:
    script = node_modules / "readme.mjs"
    script.write_text(here(started, block("js", "OpenAI")))
    assert await asyncio.to_thread(run, started, [NODE, script.name], node_modules) == SAID


@pytest.mark.parametrize("word", ["llmgateway keys list", "llmgateway limits set"])
async def test_the_commands(started: Started, word: str) -> None:
    """In the directory of the gateway, as its operator would."""
    for line in block("sh", word).splitlines():
        command = [sys.executable, "-m", *shlex.split(line)]
        out = await asyncio.to_thread(run, started, command, started.gateway.directory)
        assert out.strip()


async def test_the_line_that_asks_a_deployment(started: Started) -> None:
    directory = started.gateway.directory
    (directory / "api-key").write_text(started.key)
    line = block("sh", "llmgateway conform").replace("https://llm.example.org", started.gateway.url)
    command = [sys.executable, "-m", *shlex.split(line)]
    assert "All is well." in await asyncio.to_thread(run, started, command, directory)


@pytest.mark.parametrize("words", ["make run", "LLM_DEFAULT_URL= make run", "make test"])
def test_the_targets_of_make(words: str) -> None:
    """What they would do; that they do it is what runs these tests."""
    *settings, make, target = words.split()
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    line = next(li for li in lines if li.endswith(f"{make} {target}") and all(s in li for s in settings))
    dry = ["sh", "-c", line.replace("make ", "make -n ")]
    done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ("llmgateway serve" if target == "run" else "pytest") in done.stdout


def test_the_line_that_starts_a_fleet() -> None:
    """The suite's own fleets are started by the same words."""
    line = next(line for line in block("sh", "gunicorn").splitlines() if line.startswith("gunicorn"))
    assert line.split() == ["gunicorn", "-c", "config/gunicorn.conf.py", "llmgateway.asgi:app"]
    fleet = Gateway.fleet(redis_url="redis://127.0.0.1", mongo_url="mongodb://127.0.0.1")
    assert [word.removeprefix(f"{ROOT}/") for word in fleet.program.argv[2:]] == line.split()


def test_no_block_is_left_out() -> None:
    ran: list[Callable[[str], bool]] = [
        lambda text: "curl" in text, lambda text: "OpenAI" in text, lambda text: "llmgateway keys" in text,
        lambda text: "llmgateway conform" in text, lambda text: "gunicorn" in text,
        lambda text: "make run" in text, lambda text: "make test" in text,
    ]  # fmt: skip
    assert [text for _, text in BLOCKS if not any(is_run(text) for is_run in ran)] == []
