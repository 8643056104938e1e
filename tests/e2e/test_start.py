"""The first minute: it starts at once, keeps everything, says what to do next, and stops in order."""

import asyncio
import json
import pkgutil
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import llmgateway
from tests.e2e.command import run, run_in
from tests.e2e.deployment import CHAT
from tests.lab.client import Request, chat, data_of, fetch, post
from tests.lab.gateway import Gateway, serving
from tests.lab.processes import Program, clean_environment, free_port
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually, eventually_answers

pytestmark = pytest.mark.e2e

FIRST_START, NEXT_START = 1.0, 2.0  # seconds
AT_REST = 80 << 20  # bytes of memory
MODULES = [
    module.name
    for module in pkgutil.walk_packages(llmgateway.__path__, "llmgateway.")
    if module.name != "llmgateway.__main__"
]


# --- started as anybody would


class Plain:
    """`llmgateway serve` with nothing set but the port, in an empty directory."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.environment = clean_environment(LLMGATEWAY_PORT=str(self.port), **environment)
        argv = [sys.executable, "-m", "llmgateway", "serve"]
        self.program = Program(argv, directory / "log", cwd=directory, environment=self.environment)

    async def __aenter__(self) -> "Plain":
        self.program.start()
        await eventually_answers(self.is_ready, "it is ready", 20)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.program.kill()

    async def is_ready(self) -> bool:
        assert self.program.is_running, self.program.output()
        try:
            return (await fetch(self.url, Request("GET", "/health/ready"))).status == 200
        except (OSError, EOFError):
            return False


@pytest.mark.alone
async def test_it_starts_at_once(tmp_path: Path) -> None:
    """The best of three, since the machine may be busy."""
    took = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        began = time.monotonic()
        async with Plain(tmp_path / name):
            took.append(time.monotonic() - began)
    assert min(took) < FIRST_START, took


async def test_it_starts_with_nothing_set(tmp_path: Path) -> None:
    async with Plain(tmp_path) as plain:
        kept = {
            path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir() if path.is_file()
        }
        assert kept["admin_key"] == kept["secret_keys"] == kept["key_pepper"] == 0o600
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert plain.program.output()


async def test_the_printed_line_works_when_it_is_pasted(tmp_path: Path) -> None:
    """What a first start prints can be pasted into a shell, and is answered by the built-in model."""
    async with Plain(tmp_path) as plain:
        printed = await eventually(lambda: curl_in(plain.program.output()), "a curl line is printed") or ""
        if shutil.which("curl"):
            done = await asyncio.to_thread(
                subprocess.run,
                ["sh", "-c", f"{printed} -s"],
                capture_output=True,
                text=True,
                timeout=20,
                cwd=tmp_path,
                check=True,
            )
            said = done.stdout
        else:
            said = (await fetch(plain.url, request_of(printed))).body.decode()
        assert "choices" in said, said


def curl_in(output: str) -> str | None:
    """The command, whose lines may end with a backslash."""
    found = re.search(r"curl (?:[^\n]*\\\n)*[^\n]*", output)
    return found[0] if found else None


def request_of(command: str) -> Request:
    words = shlex.split(command.replace("\\\n", " "))
    options = list(pairwise(words))
    headers = [value.partition(":") for flag, value in options if flag in ("-H", "--header")]
    data = next((value.encode() for flag, value in options if flag in ("-d", "--data")), None)
    url = next(word for word in words if word.startswith("http"))
    named = {name.strip().lower(): value.strip() for name, _, value in headers}
    return Request("POST" if data else "GET", urlsplit(url).path, body=data, headers=named)


@pytest.mark.alone
async def test_the_next_start_keeps_everything(upstream: ScriptedUpstream) -> None:
    async with Gateway.embedded(serving(upstream.url, "ok-3")) as gateway:
        key = await gateway.create_key("alice")
        for _ in range(50):
            assert (await gateway.ask(post(CHAT, chat("ok-3"), key.secret))).status == 200
        await gateway.ledger(50)
        assert await gateway.stop() == 0
        began = time.monotonic()
        await gateway.start()
        assert time.monotonic() - began < NEXT_START
        assert (await gateway.ask(post(CHAT, chat("ok-3"), key.secret))).status == 200
        assert len(await gateway.ledger(51)) == 51
        usage = await gateway.admin("GET", "/usage?by=user")
        assert usage.json["data"][0]["requests"] == 51


async def test_it_is_small_at_rest(upstream: ScriptedUpstream) -> None:
    async with Gateway.embedded(serving(upstream.url, "ok-3")) as gateway:
        key = await gateway.create_key("alice")
        for _ in range(20):
            await gateway.ask(post(CHAT, chat("ok-3"), key.secret))
        status = Path(f"/proc/{gateway.pid}/status").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
        assert resident < AT_REST, f"{resident >> 20} MiB"


# --- its modules


LOOK = """
import importlib, json, sys
seen = []
def look(event, arguments):
    ours = (".py", ".pyc", ".so")  # code
    if event == "open" and isinstance(arguments[0], str) and not arguments[0].endswith(ours):
        seen.append(f"open {arguments[0]}")
    elif event.startswith(("socket.", "subprocess.", "os.fork", "os.mkdir", "sqlite3.connect")) \\
            and event != "socket.gethostname":
        seen.append(f"{event} {arguments!r}")
for name in json.loads(sys.argv[1]):  # what other packages open is not ours
    importlib.import_module(name)
sys.addaudithook(look)
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
print(json.dumps(seen))
"""
OTHERS = [
    "uvicorn",
    "uvloop",
    "gunicorn.arbiter",
    "uvicorn_worker",
    "httptools",
    "msgspec.yaml",
    "yaml",
    "pymongo",
    "redis.asyncio",
    "prometheus_client",
    "starlette.applications",
    "httpx",
    "sqlite3",
    "zoneinfo",
    "ssl",
    "multiprocessing",
    "importlib.metadata",
    "python_multipart",
    "babel.dates",
    "babel.messages.mofile",
    "jinja2",
    "argon2",
]


def test_importing_a_module_has_no_effect(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", LOOK, json.dumps(OTHERS), json.dumps(MODULES)]
    quiet = {**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1"}  # what Python keeps is not ours
    done = subprocess.run(argv, cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert list(tmp_path.iterdir()) == []


def test_asgi_can_be_imported_without_settings(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "from llmgateway.asgi import app; assert callable(app)"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- what cannot work stops the start


def test_bad_settings_are_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("curency: EUR\nmodels:\n  - id: a\n")
    environment = clean_environment(
        LLMGATEWAY_PORT="many",
        LLM_MODELS="a",
        REDIS_URL="redis://localhost",
        ADMIN_KEY="short",
        LLMGATEWAY_CONFIG=str(tmp_path / "gateway.yaml"),
        LLMGATEWAY_LOG_LEVL="info",
    )
    done = run_in(environment, "serve", cwd=str(tmp_path))
    assert done.returncode == 2, done.stderr
    for name in (
        "LLMGATEWAY_PORT",
        "LLM_DEFAULT_URL",
        "MONGO_URL",
        "ADMIN_KEY",
        "curency",
        "targets",
        "LLMGATEWAY_LOG_LEVL",
    ):
        assert name in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_several_workers_need_the_stores(tmp_path: Path) -> None:
    done = run_in(clean_environment(WEB_CONCURRENCY="2"), "serve", cwd=str(tmp_path))
    assert done.returncode == 2
    assert "WEB_CONCURRENCY" in done.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run_in(clean_environment(LLMGATEWAY_PORT=str(port)), "serve", cwd=str(tmp_path))
    assert done.returncode not in (0, -9)
    assert str(port) in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_commands_say_how_they_are_used(tmp_path: Path) -> None:
    for words, code in ((("version",), 0), (("--help",), 0), (("nonsense",), 2), (("keys",), 2)):
        done = run_in(clean_environment(), *words, cwd=str(tmp_path))
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert done.stdout + done.stderr
    assert llmgateway.__version__ in run_in(clean_environment(), "version", cwd=str(tmp_path)).stdout


async def test_check_reaches_what_there_is(upstream: ScriptedUpstream) -> None:
    gateway = Gateway.embedded(serving(upstream.url, "ok-1"))
    async with gateway:
        assert (await asyncio.to_thread(run, gateway, "check")).returncode == 0
        gone = {"LLM_DEFAULT_URL": "http://127.0.0.1:1"}
        done = await asyncio.to_thread(run, gateway, "check", **gone)
        assert done.returncode == 1
        assert "127.0.0.1:1" in done.stdout + done.stderr


# --- the end


@pytest.fixture(params=["embedded", "fleet"])
def gateway_with(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Callable[[str], Gateway]:
    """Makes a gateway of either kind with this file."""
    environment = serving(upstream.url, "hold-after-2")
    if request.param == "embedded":
        return lambda config: Gateway.embedded(environment, config=config)
    redis_url, mongo_url = request.getfixturevalue("redis_url"), request.getfixturevalue("mongo_url")
    return lambda config: Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=config)


async def test_r_fault_45_open_streams_finish_before_it_ends(
    gateway_with: Callable[[str], Gateway], upstream: ScriptedUpstream
) -> None:
    async with gateway_with("drain_pause: 0\ndrain: 20\n") as gateway:
        key = await gateway.create_key("alice")
        async with await gateway.connect() as connection:
            await connection.send(post(CHAT, chat("hold-after-2", stream=True), key.secret))
            await connection.head()
            first = await connection.events(2)
            ending = asyncio.ensure_future(gateway.stop())
            await eventually_answers(lambda: refuses(gateway), "nothing new is taken")
            upstream.release("hold-after-2")
            rest = await connection.body()
            assert len(data_of(first)) == 2
            assert rest.endswith(b"data: [DONE]\n\n")
        assert await ending == 0
        await gateway.start()
        (record,) = await gateway.ledger(1)
        assert (record["outcome"], record["tokens"]["completion"]) == ("completed", 4)


async def refuses(gateway: Gateway) -> bool:
    try:
        async with asyncio.timeout(2):
            return (await gateway.get("/health/ready")).status == 503
    except (OSError, EOFError, TimeoutError):
        return True


async def test_r_fault_46_what_lasts_too_long_is_cut_and_accounted(
    gateway_with: Callable[[str], Gateway],
) -> None:
    async with gateway_with("drain_pause: 0\ndrain: 0.5\n") as gateway:
        key = await gateway.create_key("alice")
        async with await gateway.connect() as connection:
            await connection.send(post(CHAT, chat("hold-after-2", stream=True), key.secret))
            await connection.head()
            await connection.events(2)
            ending = asyncio.ensure_future(gateway.stop())
            error = data_of([await connection.event()])[-1]["error"]
            assert error["code"] == "shutting_down"
        assert await ending == 0, "what was cut is settled: the stop did what it promises"
        await gateway.start()
        (record,) = await gateway.ledger(1)
        assert (record["outcome"], record["status"], record["tokens"]["completion"]) == ("shutdown", 200, 2)
