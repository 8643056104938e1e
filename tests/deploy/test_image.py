"""The image, built and run: `make image-test`. What it costs is printed."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.deploy import image as images
from tests.deploy.image import UID, Image
from tests.deploy.sbom import ROOT_PACKAGE, canonical, locked
from tests.lab.client import Request, chat, data_of, fetch, post
from tests.lab.gateway import ADMIN_KEY, PEPPER, SIGNING_KEY
from tests.lab.processes import Program, family_of, free_port
from tests.lab.servers import Mongod, Valkey
from tests.lab.waiting import eventually, eventually_answers

pytestmark = [pytest.mark.image, pytest.mark.e2e]

MOST_BYTES = 400 << 20  # with the base
MOST_SECONDS = 5.0  # to be ready
GUNICORN = ("gunicorn", "-c", "config/gunicorn.conf.py", "llmgateway.asgi:app")
FORBIDDEN = ("gcc", "cc", "make", "ld", "pytest", "ruff", "mypy", "curl", "wget")


@pytest.fixture(scope="session")
def image() -> Image:
    images.need()
    return images.build()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    data = tmp_path / "volume"
    data.mkdir(mode=0o700)
    os.chown(data, UID, UID)
    return data


class Contained(Program):
    """A container; its first process is what signals are for."""

    @property
    def first(self) -> int:
        return family_of(self.pid)[1]

    def end(self, seconds: float = 20) -> int:
        os.kill(self.first, signal.SIGTERM)
        return self.wait(seconds)


@asynccontextmanager
async def running(
    image: Image, volume: Path, *words: str, **environment: str
) -> AsyncIterator[tuple[Contained, str]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = image.argv(volume, *words, LLMGATEWAY_PORT=str(port), ADMIN_KEY=ADMIN_KEY, **environment)

    async def is_ready() -> bool:
        assert container.is_running, container.output()
        try:
            return (await fetch(url, Request("GET", "/health/ready"))).status == 200
        except (OSError, EOFError):
            return False

    began = time.monotonic()
    with Contained(argv, volume.parent / "log") as container:
        await eventually_answers(is_ready, "the container is ready", 20)
        took = time.monotonic() - began
        print(f"{' '.join(words or image.command)}: ready after {took:.2f} s")
        assert took < MOST_SECONDS
        yield container, url


async def ask_the_echo(url: str) -> None:
    made = await fetch(url, post("/admin/keys", {"user": "a", "name": "b"}, ADMIN_KEY))
    asked = post("/v1/chat/completions", chat("echo", "Hei", stream=True), made.json["key"])
    answer = await fetch(url, asked)
    assert answer.status == 200, answer.body
    assert data_of(answer.events)[-1] == "[DONE]"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_says_what_it_is(image: Image) -> None:
    assert image.config["User"] == f"{UID}:{UID}"
    assert image.config["Cmd"] == ["llmgateway", "serve"]
    assert not image.config["Entrypoint"]
    assert {"title", "version", "revision", "source", "licenses", "base.name"} <= {
        name.removeprefix("org.opencontainers.image.") for name in image.config["Labels"]
    }
    whole, own = image.size(), image.part("/opt/llmgateway")
    print(f"{whole / 2**20:.0f} MiB, {own / 2**20:.0f} MiB of them on top of the base")
    assert whole < MOST_BYTES


def test_it_holds_the_lock_and_nothing_that_builds_or_tests(image: Image) -> None:
    site = next((image.root / "opt/llmgateway/lib").glob("python3*/site-packages"))
    found = {path.name.rpartition(".")[0] for path in site.glob("*.dist-info")}
    named = {canonical(name.rpartition("-")[0]) for name in found}
    assert named - {ROOT_PACKAGE} <= set(locked(anywhere=True))
    assert ROOT_PACKAGE in named
    directories = [image.root / part for part in ("opt/llmgateway/bin", "usr/local/bin", "usr/bin", "bin")]
    assert [name for name in FORBIDDEN for d in directories if (d / name).exists()] == []
    assert not list((image.root / "opt/llmgateway").rglob("pip"))


def test_nobody_can_change_the_code(image: Image) -> None:
    owned = [path for path in (image.root / "opt/llmgateway").rglob("*") if path.lstat().st_uid != 0]
    assert owned == []


async def test_s_sup_06_embedded_as_nobody_on_a_read_only_root(image: Image, volume: Path) -> None:
    async with running(image, volume) as (container, url):
        told = status_of(container.first)
        assert told["Uid"].split() == [str(UID)] * 4
        assert int(told["CapBnd"], 16) == int(told["CapEff"], 16) == 0
        assert told["NSpid"].split()[-1] == "1"
        mounts = Path(f"/proc/{container.first}/mounts").read_text().splitlines()
        assert next(line for line in mounts if line.split()[1] == "/").split()[3].startswith("ro")
        await ask_the_echo(url)
        assert await asyncio.to_thread(container.end) == 0


async def test_its_health_check_tells(image: Image, volume: Path) -> None:
    (kind, *probe) = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    async with running(image, volume) as (container, url):
        port = url.rpartition(":")[2]
        second = volume.parent / "second"
        second.mkdir()
        argv = image.argv(second, *probe, LLMGATEWAY_PORT=port)
        assert (await asyncio.to_thread(subprocess.run, argv, timeout=20, check=False)).returncode == 0
        await asyncio.to_thread(container.end)
        done = await asyncio.to_thread(subprocess.run, argv, timeout=20, check=False, capture_output=True)
        assert done.returncode == 1


async def test_gunicorn_as_process_1(image: Image, volume: Path, valkey: Valkey, mongod: Mongod) -> None:
    shared = {
        "REDIS_URL": valkey.url(0), "MONGO_URL": mongod.url("image"), "WEB_CONCURRENCY": "2",
        "LLMGATEWAY_SECRET_KEYS": SIGNING_KEY, "LLMGATEWAY_KEY_PEPPER": PEPPER, "LLMGATEWAY_METRICS": "open",
    }  # fmt: skip
    config = volume / "gateway.yaml"
    config.write_text("drain_pause: 0\nmodels: [{id: echo, targets: [{provider: echo}]}]\n")
    shared["LLMGATEWAY_CONFIG"] = "/var/lib/llmgateway/gateway.yaml"
    async with running(image, volume, *GUNICORN, **shared) as (container, url):
        await eventually(lambda: len(family_of(container.first)) == 3, "two workers")
        await ask_the_echo(url)
        assert await asyncio.to_thread(container.end) == 0


def test_it_refuses_several_workers_alone(image: Image, volume: Path) -> None:
    argv = image.argv(volume, *GUNICORN, WEB_CONCURRENCY="4")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "WEB_CONCURRENCY" in done.stderr


def test_commands_run_in_it(image: Image, volume: Path) -> None:
    argv = image.argv(volume, "llmgateway", "version", "--json")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
