"""The gateway as people run it: a program with an environment, a port and a data directory."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import pytest

from tests.lab.client import Answer, Connection, Request, fetch
from tests.lab.processes import LOG_TAIL, PATIENCE, ROOT, Program, clean_environment, family_of, free_port
from tests.lab.waiting import eventually_answers

ADMIN_KEY = "lab-admin-key-0123456789-0123456789-0123456789"
SIGNING_KEY = "lab-signing-key-0123456789-0123456789-0123456789"
PEPPER = "lab-pepper-0123456789-0123456789-0123456789-0123"
MOST_PER_PAGE = 1000

QUICK_STOP = "drain_pause: 0\n"  # no load balancer has to notice first
NOTHING: Mapping[str, str] = MappingProxyType({})

Json = dict[str, Any]
Environment = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """What the admin API answered when it made a key: `secret` is what a program sends."""

    id: str
    secret: str
    document: Json


class Gateway:
    """One running gateway. Leaving the block kills it and removes its data directory."""

    def __init__(self, argv: Sequence[str], environment: Environment, config: str | None = None) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="lab-"))
        self.data = self.directory / "data"
        settings = {
            "ADMIN_KEY": ADMIN_KEY,
            "LLMGATEWAY_HOST": "127.0.0.1",
            "LLMGATEWAY_PORT": str(self.port),
            "LLMGATEWAY_PUBLIC_URL": self.url,
            "LLMGATEWAY_DATA_DIR": str(self.data),
            "LLMGATEWAY_LOG_FORMAT": "json",
            "LLMGATEWAY_METRICS": "open",
        }
        if config is not None:
            settings["LLMGATEWAY_CONFIG"] = str(self.directory / "gateway.yaml")
            (self.directory / "gateway.yaml").write_text(config)
        self.program = Program(
            argv,
            self.directory / "log",
            cwd=self.directory,
            environment=clean_environment(**settings, **_measured()) | dict(environment),
        )

    @classmethod
    def embedded(cls, environment: Environment = NOTHING, *, config: str | None = None) -> Self:
        """`llmgateway serve`: one process, everything in its data directory."""
        return cls([sys.executable, "-m", "llmgateway", "serve"], environment, config)

    @classmethod
    def fleet(
        cls,
        environment: Environment = NOTHING,
        *,
        redis_url: str,
        mongo_url: str,
        workers: int = 2,
        config: str = QUICK_STOP,
    ) -> Self:
        """Production: several workers under gunicorn that share Redis and MongoDB."""
        conf = str(ROOT / "config/gunicorn.conf.py")
        shared = {
            "REDIS_URL": redis_url,
            "MONGO_URL": mongo_url,
            "WEB_CONCURRENCY": str(workers),
            "LLMGATEWAY_SECRET_KEYS": SIGNING_KEY,
            "LLMGATEWAY_KEY_PEPPER": PEPPER,
        }
        argv = [sys.executable, "-m", "gunicorn", "-c", conf, "llmgateway.asgi:app"]
        return cls(argv, {**shared, **environment}, config)

    # --- life

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self._clear()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def _clear(self) -> None:
        self.program.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def start(self) -> None:
        """Starts it, for the first time or again on what it left behind; returns when it is ready."""
        self.program.start()
        await eventually_answers(self._ready_or_ended, "the gateway is ready", PATIENCE)
        if not self.program.is_running:
            code = self.program.wait()
            pytest.fail(f"the gateway ended with {code}:\n{self.output()[-LOG_TAIL:]}")

    async def _ready_or_ended(self) -> bool:
        return not self.program.is_running or await self.is_ready()

    async def is_ready(self) -> bool:
        return await self._status_of("/health/ready") == 200

    async def is_alive(self) -> bool:
        return await self._status_of("/health/live") == 200

    async def _status_of(self, path: str) -> int:
        """0 when it does not answer."""
        try:
            async with asyncio.timeout(2):
                return (await self.get(path)).status
        except (OSError, EOFError, TimeoutError):
            return 0

    async def stop(self, seconds: float = PATIENCE) -> int | None:
        """SIGTERM as a supervisor sends it; the exit code."""
        return await asyncio.to_thread(self.program.stop, seconds)

    async def kill(self) -> None:
        """SIGKILL for every process of it, at once."""
        await asyncio.to_thread(self.program.kill)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    @property
    def pid(self) -> int:
        return self.program.pid

    @property
    def pids(self) -> list[int]:
        """The master and its workers, or the one process."""
        return family_of(self.pid)

    @property
    def workers(self) -> list[int]:
        return self.pids[1:] or self.pids

    def output(self) -> str:
        return self.program.output()

    # --- talking to it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"{self.url}/v1"

    async def connect(self, receive_buffer: int | None = None) -> Connection:
        return await Connection.open(self.url, receive_buffer)

    async def ask(self, request: Request) -> Answer:
        return await fetch(self.url, request)

    async def get(self, path: str, key: str | None = None) -> Answer:
        return await self.ask(Request("GET", path, key))

    async def admin(self, method: str, path: str, body: Any = None) -> Answer:
        """A call of the operators' API; any status."""
        return await self.ask(Request(method, f"/admin{path}", ADMIN_KEY, json=body))

    async def create_key(self, user: str = "alice", name: str = "lab", **fields: Any) -> IssuedKey:
        answer = await self.admin("POST", "/keys", {"user": user, "name": name, **fields})
        assert answer.status == 201, answer.body
        return IssuedKey(answer.json["id"], answer.json["key"], answer.json)

    async def metrics(self) -> dict[str, float]:
        """Every sample of `/metrics` by name and labels, as they are written."""
        answer = await self.get("/metrics")
        assert answer.status == 200, answer.body
        lines = answer.body.decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        samples = await self.metrics()
        return sum(value for sample, value in samples.items() if sample.partition("{")[0] == name)

    async def records(self, **where: str) -> list[Json]:
        """The ledger's records, oldest first."""
        found: list[Json] = []
        query = {**where, "limit": str(MOST_PER_PAGE)}
        while True:
            answer = await self.admin("GET", f"/requests?{urlencode(query)}")
            assert answer.status == 200, answer.body
            found += answer.json["data"]
            if (after := answer.json["next"]) is None:
                return found[::-1]
            query["after"] = after

    async def ledger(self, count: int, seconds: float = 10, **where: str) -> list[Json]:
        """The records when there are at least so many; the test compares how many there are."""

        async def enough() -> list[Json]:
            found = await self.records(**where)
            return found if len(found) >= count else []

        if count == 0:
            return await self.records(**where)
        return await eventually_answers(enough, f"{count} records are in the ledger", seconds)


def serving(upstream_url: str, *models: str, **more: str) -> dict[str, str]:
    """The environment of a gateway in front of these models of an upstream."""
    return {"LLM_DEFAULT_URL": upstream_url, "LLM_MODELS": ",".join(models), **more}


def _measured() -> dict[str, str]:
    """Where coverage is measured, it is measured in the gateway's processes too."""
    return {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
