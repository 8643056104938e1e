"""The image, built and run: `make image-test`. What it costs is printed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llmgateway.settings import SETTINGS
from tests.deploy import image as images
from tests.deploy.image import UID, Image
from tests.deploy.manifests import tool
from tests.deploy.sbom import ROOT_PACKAGE, canonical, listed, locked
from tests.lab.client import Connection, Request, chat, data_of, fetch, post
from tests.lab.gateway import ADMIN_KEY, PEPPER, SIGNING_KEY
from tests.lab.processes import ROOT, Program, family_of, free_port
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually, eventually_answers

pytestmark = [pytest.mark.image, pytest.mark.e2e]

MOST_BYTES = 400 << 20  # with the base
MOST_SECONDS = 5.0  # to be ready
GUNICORN = ("gunicorn", "-c", "config/gunicorn.conf.py", "llmgateway.asgi:app")
HELD, STREAMS = "hold-after-2", 200
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


def test_s_sup_03_the_bill_of_materials_is_what_the_image_holds(image: Image, tmp_path: Path) -> None:
    """As `make sbom` makes it."""
    install = ["install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r", "requirements.lock"]
    bill = tmp_path / "sbom.json"
    for argv in (
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "site"],
        [sys.executable, "-m", "pip", "--python", tmp_path / "site/bin/python", *install],
        [tool("cyclonedx-py"), "environment", tmp_path / "site", "--output-reproducible", "-o", bill],
    ):
        subprocess.run([str(word) for word in argv], cwd=ROOT, check=True, timeout=300)
    site = next((image.root / "opt/llmgateway/lib").glob("python3*/site-packages"))
    held = dict(path.name.removesuffix(".dist-info").rsplit("-", 1) for path in site.glob("*.dist-info"))
    found = {canonical(name): version for name, version in held.items()}
    found.pop(ROOT_PACKAGE)
    assert listed(json.loads(bill.read_text())) == locked()
    assert found.items() <= locked(anywhere=True).items()  # the base's Python may be older than this one
    assert locked().keys() <= found.keys()


def test_s_sup_04_nothing_in_the_image_runs_by_itself(image: Image) -> None:
    own = image.root / "opt/llmgateway"
    starters = [*own.rglob("*.pth"), *own.rglob("sitecustomize.py"), *own.rglob("usercustomize.py")]
    assert starters == []


def test_s_sup_07_no_secret_is_in_the_image(image: Image) -> None:
    secrets = {one.name for one in SETTINGS if one.is_secret}
    named = {name.removesuffix("_FILE") for name in image.environment}
    assert not named & secrets
    kept = ("admin_key", "secret_keys", "key_pepper", ".env", ".git", "gateway.yaml")
    ours = [image.root / "opt/llmgateway", image.root / "etc/llmgateway", image.root / "var/lib/llmgateway"]
    assert [path for place in ours for path in place.rglob("*") if path.name in kept] == []


async def test_s_sup_07_no_secret_stands_in_a_list_of_processes(image: Image, volume: Path) -> None:
    async with running(image, volume) as (container, _):
        for pid in family_of(container.first):
            assert ADMIN_KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        await asyncio.to_thread(container.end)


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


def fleet(volume: Path, valkey: Valkey, mongod: Mongod, config: str, **more: str) -> dict[str, str]:
    """The settings of two workers with stores."""
    (volume / "gateway.yaml").write_text(config)
    return {
        "REDIS_URL": valkey.url(0), "MONGO_URL": mongod.url("image"), "WEB_CONCURRENCY": "2",
        "LLMGATEWAY_SECRET_KEYS": SIGNING_KEY, "LLMGATEWAY_KEY_PEPPER": PEPPER, "LLMGATEWAY_METRICS": "open",
        "LLMGATEWAY_CONFIG": "/var/lib/llmgateway/gateway.yaml", **more,
    }  # fmt: skip


async def test_gunicorn_as_process_1(image: Image, volume: Path, valkey: Valkey, mongod: Mongod) -> None:
    config = "drain_pause: 0\nmodels: [{id: echo, targets: [{provider: echo}]}]\n"
    async with running(image, volume, *GUNICORN, **fleet(volume, valkey, mongod, config)) as (container, url):
        await eventually(lambda: len(family_of(container.first)) == 3, "two workers")
        await ask_the_echo(url)
        assert await asyncio.to_thread(container.end) == 0


async def test_r_fault_45_two_hundred_streams_outlive_sigterm_to_process_1_of_the_image(
    image: Image, volume: Path, valkey: Valkey, mongod: Mongod, upstream: ScriptedUpstream
) -> None:
    model = {"LLM_DEFAULT_URL": upstream.url, "LLM_MODELS": HELD}
    settings = fleet(volume, valkey, mongod, "drain_pause: 1\ndrain: 60\n", **model)
    async with running(image, volume, *GUNICORN, **settings) as (container, url):
        made = await fetch(url, post("/admin/keys", {"user": "a", "name": "b"}, ADMIN_KEY))
        asked = post("/v1/chat/completions", chat(HELD, stream=True), made.json["key"])

        async def opened() -> Connection:
            connection = await Connection.open(url)
            await connection.send(asked)
            assert (await connection.head()).status == 200
            return connection

        streams = await asyncio.gather(*(opened() for _ in range(STREAMS)))
        first = container.first
        ending = asyncio.ensure_future(asyncio.to_thread(container.end, 60))
        await eventually_answers(lambda: is_unready(url), "it says that it is not ready")
        upstream.release(HELD)
        bodies = await asyncio.gather(*(stream.body() for stream in streams))
        assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
        assert await ending == 0, container.output()
        assert not Path(f"/proc/{first}").exists()
        assert len({call.request_id for call in upstream.calls}) == STREAMS


async def is_unready(url: str) -> bool:
    return (await fetch(url, Request("GET", "/health/ready"))).status == 503


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
