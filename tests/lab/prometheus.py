"""A real Prometheus in front of a gateway, with the rules that are shipped."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from typing_extensions import override

from tests.lab.client import Request, fetch
from tests.lab.processes import ROOT, absent, is_listening
from tests.lab.servers import Server

RULES = ROOT / "deploy/prometheus/rules.yaml"
INSTALL = "apt-get install -y --no-install-recommends prometheus"


class Prometheus(Server):
    """It asks its targets, host and port, every second."""

    def __init__(self, *targets: str) -> None:
        super().__init__()
        self._config = self.directory / "prometheus.yaml"
        job = {"job_name": "llmgateway", "static_configs": [{"targets": list(targets)}]}
        often = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        told = {"global": often, "rule_files": [str(RULES)], "scrape_configs": [job]}
        self._config.write_text(yaml.safe_dump(told))

    @override
    def _executable(self) -> Path:
        found = shutil.which("prometheus")
        return Path(found) if found else absent("Prometheus", INSTALL)

    @override
    def _arguments(self) -> Sequence[str | Path]:
        return [
            f"--config.file={self.directory}/prometheus.yaml",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    @override
    def _is_ready(self) -> bool:
        return is_listening(self.port)

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """What a query gives now; series with `metric` and `value`."""
        return await self._result("query", query=query)

    async def history(self, query: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """What it gave; series with `metric` and `values`."""
        return await self._result("query_range", query=query, start=start, end=end, step=step)

    async def alerts(self) -> set[str]:
        """Names of what fires or is about to."""
        found = await self._asked("alerts")
        return {alert["labels"]["alertname"] for alert in found["data"]["alerts"]}

    async def _result(self, path: str, **asked: object) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._asked(f"{path}?{urlencode(asked)}"))["data"]["result"]
        return found

    async def _asked(self, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}"
        answer = await fetch(url, Request("GET", f"/api/v1/{path}"))
        told: dict[str, Any] = json.loads(answer.body)
        assert told["status"] == "success", told
        return told
