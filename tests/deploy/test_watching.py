"""Rules and dashboards: sound by promtool, and on metrics that a gateway under load really tells."""

import asyncio
import contextlib
import html
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy.boards import DASHBOARDS, filled, is_of_prometheus, load, of_panel, queries
from tests.deploy.manifests import DEPLOY
from tests.deploy.policy import REST_MIB
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway
from tests.lab.processes import ROOT, absent
from tests.lab.prometheus import INSTALL, Prometheus
from tests.lab.servers import Mongod, Valkey
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

PROMETHEUS = DEPLOY / "prometheus"
RUNBOOKS = ROOT / "docs/operations/runbooks"
FOREIGN = {"certmanager_certificate_expiration_timestamp_seconds"}
# Told only when what they count has happened; their names are those of the table of metrics.
SELDOM = {"llmgateway_ledger_faults", "llmgateway_certificate_expiry_timestamp_seconds"}
RATE = "5s"  # what a dashboard's curves are averaged over here
MODELS = ("ok-5", "narrow", "falls-back", "status-500")
WATCHED = """
drain_pause: 0
models:
  - {id: ok-5, targets: [{url: "${LLM_DEFAULT_URL}/ok-5/v1"}]}
  - {id: status-500, targets: [{url: "${LLM_DEFAULT_URL}/status-500/v1"}]}
  - {id: narrow, max_in_flight: 1, targets: [{url: "${LLM_DEFAULT_URL}/ok-3/v1"}]}
  - id: falls-back
    targets: [{url: "${LLM_DEFAULT_URL}/status-503/v1"}, {url: "${LLM_DEFAULT_URL}/ok-3~second/v1"}]
"""
PERSONAL = re.compile(r"\b(user|key_id|project|email|session)\b")

dashboards = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def named(query: str) -> set[str]:
    """The metrics of a query; what rules record has colons."""
    without_values = re.sub(r'"[^"]*"', '""', query)
    return {
        name for name in re.findall(r"\b(?:llmgateway|certmanager)_\w+", without_values)
        if not name.startswith("llmgateway:")
    }  # fmt: skip


def promtool(*words: str) -> None:
    if shutil.which("promtool") is None:
        absent("promtool", INSTALL)
    done = subprocess.run(
        ["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", "rules.yaml")


def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", "rules.test.yaml")


def test_promtool_takes_the_configuration() -> None:
    promtool("check", "config", "prometheus.yaml")


def test_every_alert_is_tested_to_fire_and_to_keep_quiet() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yaml").read_text())["tests"]
    expected = [check for test in tests for check in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {check["alertname"] for check in expected if check["exp_alerts"]} == names
    assert {check["alertname"] for check in expected if not check["exp_alerts"]} == names


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_page(rule: dict[str, Any]) -> None:
    url = rule["annotations"]["runbook_url"]
    page = RUNBOOKS / f"{rule['alert']}.md"
    assert url.endswith(f"/{page.relative_to(ROOT)}")
    text = page.read_text()
    assert text.startswith(f"# {rule['alert']}\n")
    assert "## Look" in text
    assert "## Do" in text
    assert page.name in (RUNBOOKS / "README.md").read_text()


def test_no_page_is_without_its_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in alerts()}


@dashboards
def test_a_dashboard_is_well_formed(path: Path) -> None:
    dashboard = load(path)
    assert dashboard["uid"] == f"llmgateway-{path.stem}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"


@dashboards
def test_a_dashboard_knows_nobody(path: Path) -> None:
    for query in queries(load(path)):
        assert not PERSONAL.search(query), query


@dashboards
def test_promtool_takes_its_queries(path: Path, tmp_path: Path) -> None:
    """As rules that record them, with Grafana's words put in."""
    asked = [filled(query) for query in queries(load(path)) if is_of_prometheus(query)]
    recorded = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(asked)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))
    promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yaml"))


class Watched(NamedTuple):
    """A fleet under load, and who scrapes it."""

    gateway: Gateway
    prometheus: Prometheus

    async def unanswered(self, asked: set[str]) -> set[str]:
        """Queries that give nothing within some scrapes."""
        left = set(asked)

        async def answered() -> bool:
            for query in list(left):
                if await self.prometheus.ask(filled(query, rate_interval=RATE)):
                    left.discard(query)
            return not left

        with contextlib.suppress(AssertionError):
            await eventually_answers(answered, "everything is told", 15)
        return left


@pytest.fixture(scope="module")
async def watched(anyio_backend: str, valkey: Valkey, mongod: Mongod) -> AsyncIterator[Watched]:
    redis_url, mongo_url = valkey.url(9_000), mongod.url("watched")
    async with (
        ScriptedUpstream() as upstream,
        Gateway.fleet(
            {"LLM_DEFAULT_URL": upstream.url}, redis_url=redis_url, mongo_url=mongo_url, config=WATCHED
        ) as gateway,
    ):
        with Prometheus(f"127.0.0.1:{gateway.port}") as prometheus:
            key = (await gateway.create_key("watched")).secret

            async def load_it() -> None:
                while True:
                    for model in MODELS:
                        for stream in (False, True):
                            await gateway.ask(post(CHAT, chat(model, stream=stream), key))

            loading = asyncio.ensure_future(load_it())
            yield Watched(gateway, prometheus)
            loading.cancel()
            await asyncio.wait([loading])


@dashboards
def test_a_picture_shows_every_panel(path: Path) -> None:
    """`python -m tests.pictures.dashboards` draws them anew."""
    picture = html.unescape((ROOT / f"docs/pictures/dashboard-{path.stem}.svg").read_text())
    assert [panel["title"] for panel in load(path)["panels"] if panel["title"] not in picture] == []
    assert "Drawn from this dashboard" in picture, "it is no screenshot, and says so"


async def test_every_metric_is_told_by_a_loaded_gateway(watched: Watched) -> None:
    wanted = {name for rule in rules() for name in named(rule["expr"])}
    for path in DASHBOARDS:
        for query in queries(load(path)):
            wanted |= named(query)
    assert await watched.unanswered(wanted - FOREIGN - SELDOM) == set()
    largest = max(resident_mib(pid) for pid in watched.gateway.workers)
    assert largest < REST_MIB, "the sizing of the manifests stands on this"


@dashboards
async def test_a_dashboard_shows_what_a_loaded_gateway_does(watched: Watched, path: Path) -> None:
    """By a real Prometheus, query by query."""
    asked = {query for panel in load(path)["panels"] for query in of_panel(panel)}
    quiet = {query for query in asked if named(query) & SELDOM}
    assert await watched.unanswered(asked - quiet) == set()


async def test_rules_are_computed_and_tell_of_what_is_wrong_and_of_nothing_else(watched: Watched) -> None:
    """Two servers fail here, on purpose: all that one model has, and one of the two of another."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert await watched.unanswered(recorded) == set()
    told: set[str] = set()

    async def all_told() -> bool:
        told.update(await watched.prometheus.alerts())
        return told >= {"LlmgatewayModelGone", "LlmgatewayReplicaEjected"}

    await eventually_answers(all_told, "both are told", 15)
    burns = {"LlmgatewayBudgetBurnsFast", "LlmgatewayBudgetBurnsSlowly"}
    assert told <= {"LlmgatewayModelGone", "LlmgatewayReplicaEjected", *burns}


def resident_mib(pid: int) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) / 1024


def test_what_is_seldom_told_is_in_the_table_of_metrics() -> None:
    text = (ROOT / "llmgateway/observability/metrics.py").read_text()
    ours = [name.removeprefix("llmgateway_").removesuffix("_total") for name in SELDOM]
    assert [name for name in ours if f'"{name}"' not in text] == []


def test_labels_of_rules_are_those_of_the_metrics() -> None:
    """A label that a metric has not would make an alert that never fires."""
    text = (ROOT / "llmgateway/observability/metrics.py").read_text()
    of_target = {"instance", "exported_job", "le", "name", "namespace", "pod", "job"}
    used: set[str] = set()
    for rule in rules():
        for by in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            used |= {label.strip() for label in by.split(",")}
        used |= set(re.findall(r"[{,]\s*(\w+)\s*[=!]~?", rule["expr"]))
    assert [label for label in used - of_target if f'"{label}"' not in text] == []
