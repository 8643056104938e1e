"""Rules and dashboards: sound by promtool, and on metrics that a gateway under load really tells."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY
from tests.deploy.policy import REST_MIB
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway, serving
from tests.lab.processes import ROOT, absent
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

PROMETHEUS = DEPLOY / "prometheus"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs/operations/runbooks"
FOREIGN = {"certmanager_certificate_expiration_timestamp_seconds"}
# Told only when what they count has happened; their names are those of the table of metrics.
SELDOM = {
    "llmgateway_upstream_retries_total", "llmgateway_ledger_faults", "llmgateway_job_failures_total",
    "llmgateway_upstream_up",
}  # fmt: skip
PERSONAL = re.compile(r"\b(user|key_id|project|email|session)\b")

dashboards = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for note in dashboard["annotations"]["list"]:
        yield note["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def named(query: str) -> set[str]:
    """The metrics of a query; what rules record has colons."""
    without_values = re.sub(r'"[^"]*"', '""', query)
    return {
        name for name in re.findall(r"\b(?:llmgateway|certmanager)_\w+", without_values)
        if not name.startswith("llmgateway:")
    }  # fmt: skip


def promtool(*words: str) -> None:
    if shutil.which("promtool") is None:
        absent("promtool", "apt-get install -y --no-install-recommends prometheus")
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
    dashboard = json.loads(path.read_text())
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
    for query in queries(json.loads(path.read_text())):
        assert not PERSONAL.search(query), query


@dashboards
def test_promtool_takes_its_queries(path: Path, tmp_path: Path) -> None:
    """As rules that record them, with Grafana's words put in."""
    words = {"$__rate_interval": "5m", "$__range": "6h", "$model": ".*"}
    recorded = []
    for number, query in enumerate(queries(json.loads(path.read_text()))):
        text = query
        for word, value in words.items():
            text = text.replace(word, value)
        if not text.startswith("label_values("):
            recorded.append({"record": f"query:{number}", "expr": text})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))
    promtool("check", "rules", "--lint=none", str(tmp_path / "rules.yaml"))


async def test_every_metric_is_told_by_a_loaded_gateway(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    models = ("ok-5", "ok-3", "status-500")
    wanted = {name for rule in rules() for name in named(rule["expr"])}
    for path in DASHBOARDS:
        for query in queries(json.loads(path.read_text())):
            wanted |= named(query)
    wanted -= FOREIGN | SELDOM
    async with Gateway.fleet(
        serving(upstream.url, *models), redis_url=redis_url, mongo_url=mongo_url
    ) as gateway:
        key = await gateway.create_key("watched")
        for model in models:
            for stream in (False, True):
                await gateway.ask(post(CHAT, chat(model, stream=stream), key.secret))

        async def is_told() -> bool:
            """Workers tell each other what they have counted once a second."""
            told = {name.partition("{")[0] for name in await gateway.metrics()}
            untold.intersection_update(wanted - told)
            return not untold

        untold = set(wanted)
        with contextlib.suppress(AssertionError):
            await eventually_answers(is_told, "everything is told", 15)
        assert untold == set()
        largest = max(resident_mib(pid) for pid in gateway.workers)
    assert largest < REST_MIB, "the sizing of the manifests stands on this"


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
