"""The Helm chart, rendered by Helm's own code: valid, sound, strict about values, one with the overlays."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmgateway.settings import read_file
from tests.deploy.manifests import (
    CHART,
    DEPLOY,
    GIVEN,
    KUBERNETES,
    STORES,
    VARIANTS,
    Refused,
    file_of,
    gateway_of,
    kustomized,
    of_kind,
    only,
    rendered,
    templates,
    tool,
)
from tests.deploy.policy import complaints
from tests.deploy.test_manifests import check

variants = pytest.mark.parametrize("variant", VARIANTS)

WORDS = ("ADMIN_KEY", "LLMGATEWAY_SECRET_KEYS", "LLMGATEWAY_KEY_PEPPER")
CREATED = dict.fromkeys(WORDS, "x" * 32) | {"MONGO_URL": "mongodb://m/gateway", "REDIS_URL": "redis://r"}


@variants
def test_every_variant_is_valid(variant: str) -> None:
    found = rendered(VARIANTS[variant])
    assert found
    for one in found:
        check(one)


@variants
def test_s_sup_09_every_variant_keeps_the_policy(variant: str) -> None:
    assert complaints(rendered(VARIANTS[variant])) == []


@variants
def test_the_gateway_takes_the_file(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(file_of(rendered(VARIANTS[variant]))))
    assert read_file(path, {}).models


REFUSED: Mapping[str, Mapping[str, Any]] = {
    "'replica' not allowed": {**GIVEN, "replica": 3},
    "'/image/tag'": {**GIVEN, "image": {"tag": "latest"}},
    "'/image/digest'": {**GIVEN, "image": {"digest": "sha256:short"}},
    "'/autoscaling/cpu'": {**GIVEN, "autoscaling": {"cpu": 700}},
    "min is above max": {**GIVEN, "autoscaling": {"min": 5, "max": 2}},
    "'/journal'": {**GIVEN, "journal": {"size": "10Gi", "emptyDir": True}},
    "'/journal/size'": {**GIVEN, "journal": {"size": "ten"}},
    "'/metrics'": {**GIVEN, "metrics": "on"},
    "'/trustedProxies/0'": {**GIVEN, "trustedProxies": ["the ingress"]},
    "'/config/drain'": {**GIVEN, "config": {"drain": "600s"}},
    "'/secrets/create/ADMIN_KEY'": {"secrets": {"create": {**CREATED, "ADMIN_KEY": "short"}}},
    "'/secrets/create'": {"secrets": {"create": {"ADMIN_KEY": "x" * 32}}},
    "give one of existing, create and external": {},
    "needs REDIS_PASSWORD": {"secrets": {"create": CREATED}, "redis": {"enabled": True}},
    "needs MONGO_PASSWORD": {"secrets": {"create": CREATED}, "mongodb": {"enabled": True}},
    "enable one": {**GIVEN, "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}},
    "name the Gateway": {**GIVEN, "ingress": {"enabled": False}, "httpRoute": {"enabled": True}},
}


@pytest.mark.parametrize("told", REFUSED)
def test_wrong_values_are_refused(told: str) -> None:
    with pytest.raises(Refused, match=r"^refused: ") as refused:
        rendered(REFUSED[told])
    assert told in str(refused.value)


def closed_objects(schema: Any, where: str = "") -> list[str]:
    """Objects of the schema that would take any key, but for those that are maps by nature."""
    open_ones = []
    if isinstance(schema, dict):
        is_closed = schema.get("additionalProperties") is False
        if schema.get("properties") and not is_closed and "required" not in schema:
            open_ones.append(where)
        for name, inner in schema.items():
            open_ones += closed_objects(inner, f"{where}/{name}")
    return open_ones


def test_the_schema_is_closed_and_knows_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert closed_objects(schema) == ["/properties/config"], "the gateway itself checks its file"
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, value in values.items():
        if isinstance(value, dict) and "properties" in schema["properties"][name] and name != "config":
            assert set(value) == set(schema["properties"][name]["properties"]), name


def test_the_grace_period_follows_the_drain() -> None:
    for drain, pause, pre_stop in ((600, 10, 5), (3600, 30, 20), (1.5, 0, 1)):
        config: dict[str, Any] = {"drain": drain, "drain_pause": pause, "models": []}
        found = rendered({**GIVEN, "config": config, "rollout": {"preStop": pre_stop}})
        grace = gateway_of(found)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= drain + pause + pre_stop + 45
        assert complaints(found) == []


def test_a_changed_file_changes_no_pod() -> None:
    before = rendered(GIVEN)
    after = rendered({**GIVEN, "config": {"models": [{"id": "other", "targets": [{"provider": "echo"}]}]}})
    assert file_of(before) != file_of(after)
    assert gateway_of(before) == gateway_of(after)


def test_secrets_come_in_one_of_three_ways() -> None:
    made = rendered({"secrets": {"create": CREATED}})
    assert only(made, "Secret")["stringData"] == CREATED
    vault = rendered(VARIANTS["vault"])
    assert only(vault, "ExternalSecret")["spec"]["target"]["name"] == "llmgateway"
    assert of_kind(rendered(GIVEN), "Secret") == []


def test_stores_are_off_by_default() -> None:
    assert [one["metadata"]["name"] for one in of_kind(rendered(GIVEN), "Deployment")] == []
    assert [one["metadata"]["name"] for one in of_kind(rendered(GIVEN), "StatefulSet")] == ["llmgateway"]


def test_sizes_and_the_secret_s_name_reach_the_stores() -> None:
    values = {**STORES, "secrets": {"existing": "mine"}, "mongodb": {"enabled": True, "size": "7Gi"}}
    text = templates(values)["llmgateway/templates/stores.yaml"]
    assert "storage: 7Gi" in text
    assert "secretName: mine" in text
    assert "secretName: llmgateway" not in text


def test_two_releases_can_stand_side_by_side() -> None:
    """Blue and green: they share stores, and no name or label that would mix their pods."""
    quiet = {**GIVEN, "backup": {"enabled": False}}
    blue, green = rendered(quiet, "blue"), rendered(quiet, "green")
    assert not {(one["kind"], one["metadata"]["name"]) for one in blue} & {
        (one["kind"], one["metadata"]["name"]) for one in green
    }
    labels = gateway_of(green)["spec"]["template"]["metadata"]["labels"]
    assert not only(blue, "Service", "blue-llmgateway")["spec"]["selector"].items() <= labels.items()


def test_the_notes_name_what_can_be_done() -> None:
    notes = templates(GIVEN)["llmgateway/templates/NOTES.txt"]
    assert "llmgateway keys create" in notes
    assert "660 s" in notes
    assert "WARNING" in templates(VARIANTS["bare"])["llmgateway/templates/NOTES.txt"]


def test_helm_s_own_lint_finds_nothing() -> None:
    lint = "import json, sys, helm_python as helm; print(json.dumps(helm.lint(sys.argv[1])))"
    done = subprocess.run([tool("python"), "-c", lint, CHART], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["errors"] == []
    assert [one["error"] for one in told["messages"] if one["severity"] > 1] == []


# --- one truth in two forms


@pytest.mark.parametrize("name", ["redis/redis.yaml", "mongodb/mongodb.yaml", "mongodb/initiate.js",
                                  "ollama/ollama.yaml", "qdrant/qdrant.yaml"])  # fmt: skip
def test_the_chart_carries_the_components(name: str) -> None:
    """Helm reads nothing outside a chart: copy deploy/kubernetes/components/X/Y to the chart's `files/`."""
    assert (CHART / "files" / Path(name).name).read_text() == (KUBERNETES / "components" / name).read_text()


def test_the_chart_carries_the_rules() -> None:
    """cp deploy/prometheus/rules.yaml deploy/helm/llmgateway/files/"""
    assert (CHART / "files/rules.yaml").read_text() == (DEPLOY / "prometheus/rules.yaml").read_text()


def test_chart_and_base_run_the_same_pod() -> None:
    by_chart = gateway_of(rendered(GIVEN))["spec"]["template"]["spec"]
    by_base = gateway_of(kustomized(KUBERNETES / "base"))["spec"]["template"]["spec"]
    for name in ("securityContext", "terminationGracePeriodSeconds", "enableServiceLinks"):
        assert by_chart[name] == by_base[name], name
    (one,), (other,) = by_chart["containers"], by_base["containers"]
    differing = {name for name in other if one[name] != other[name] and name not in ("env", "image")}
    assert differing == set()
    named = [{variable["name"] for variable in each["env"]} for each in (one, other)]
    assert named[0] - named[1] == {"LLMGATEWAY_LOG_LEVEL"}
    assert named[1] - named[0] == set()
