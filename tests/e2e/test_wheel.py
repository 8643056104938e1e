"""What `pip install` brings: the wheel holds all that the gateway needs, and its entry point serves."""

import asyncio
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.client import Request, chat, data_of, fetch, post
from tests.lab.processes import ROOT, Program, absent, clean_environment, free_port
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

CODE = ROOT / "llmgateway"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but the installed wheel; what it depends on is there already."""
    if importlib.util.find_spec("hatchling") is None:
        absent("hatchling", "pip install hatchling")
    site = tmp_path_factory.mktemp("site")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    build: list[str | Path] = [sys.executable, "-m", "pip", "wheel", *quiet, "--wheel-dir", site, ROOT]
    subprocess.run(build, check=True, capture_output=True, cwd=site, timeout=60)
    (wheel,) = site.glob("*.whl")
    target = ["--target", str(site / "lib"), str(wheel)]
    install = [sys.executable, "-m", "pip", "install", *quiet, *target]
    subprocess.run(install, check=True, capture_output=True, cwd=site, timeout=60)
    return site


def parts_of(directory: Path) -> Iterator[str]:
    for path in directory.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"llmgateway/{path.relative_to(directory)}"


def test_the_wheel_holds_every_part_and_nothing_else(site: Path) -> None:
    (wheel,) = site.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == set(parts_of(CODE))


async def test_the_installed_gateway_serves(site: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = clean_environment(PYTHONPATH=str(site / "lib"), ADMIN_KEY="x" * 40)
    argv: list[str | Path] = [sys.executable, site / "lib/bin/llmgateway", "serve", "--port", str(port)]

    async def is_ready() -> bool:
        try:
            return (await fetch(url, Request("GET", "/health/ready"))).status == 200
        except (OSError, EOFError):
            return False

    with Program(argv, tmp_path / "log", cwd=tmp_path, environment=environment) as program:
        await eventually_answers(is_ready, "the installed gateway is ready", 20)
        made = await fetch(url, post("/admin/keys", {"user": "a", "name": "b"}, "x" * 40))
        asked = post("/v1/chat/completions", chat("echo", "Terve taas", stream=True), made.json["key"])
        assert data_of((await fetch(url, asked)).events)[-1] == "[DONE]"
        assert await asyncio.to_thread(program.stop) == 0
