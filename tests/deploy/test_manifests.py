"""What is applied to a cluster: valid by Kubernetes' own schemas, and sound by rules that no schema has."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from llmgateway.settings import read_file
from tests.deploy.manifests import (
    KUBERNETES,
    Document,
    containers,
    file_of,
    gateway_of,
    kustomized,
    of_kind,
    only,
    pods,
)
from tests.deploy.policy import complaints

VERSION = "1.37"
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ExternalSecret", "HTTPRoute"}  # not Kubernetes' own
OVERLAYS = [KUBERNETES / "base", KUBERNETES / "overlays/dev", KUBERNETES / "overlays/prod"]
COMPONENTS = sorted(path.parent for path in KUBERNETES.glob("components/*/kustomization.yaml"))

overlays = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)


def check(one: Document) -> None:
    if one["kind"] not in FOREIGN:
        kubernetes_validate.validate(one, VERSION, strict=True)


@pytest.mark.parametrize(
    "path", sorted(KUBERNETES.glob("base/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_files_are_valid_as_they_stand(path: Path) -> None:
    """Without kubectl, so everywhere."""
    for one in yaml.safe_load_all(path.read_text()):
        if path.name not in ("kustomization.yaml", "gateway.yaml"):
            check(one)


@overlays
def test_overlays_are_valid(overlay: Path) -> None:
    found = kustomized(overlay)
    for one in found:
        check(one)
    assert {one["metadata"].get("namespace", "ai-gateway") for one in found} == {"ai-gateway"}


@overlays
def test_s_sup_09_overlays_keep_the_policy(overlay: Path) -> None:
    assert complaints(kustomized(overlay)) == []


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda path: path.name)
def test_components_can_be_added_to_the_base(component: Path, tmp_path: Path) -> None:
    """Also those that no overlay has."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes/overlays/one"
    overlay.mkdir()
    lines = ["resources: [../../base]", f"components: [../../components/{component.name}]"]
    (overlay / "kustomization.yaml").write_text("\n".join(lines))
    found = kustomized(overlay)
    for one in found:
        check(one)
    assert complaints(found) == []
    assert found != kustomized(KUBERNETES / "base")


@overlays
def test_the_gateway_s_file_is_one(overlay: Path, tmp_path: Path) -> None:
    found = kustomized(overlay)
    path = tmp_path / "gateway.yaml"
    path.write_text(yaml.safe_dump(file_of(found)))
    assert read_file(path, {"INFERENCE_KEY": "x"}).models


@overlays
def test_a_changed_file_restarts_nothing(overlay: Path) -> None:
    """Its name has no hash, it is mounted as a directory, and the pods do not mention its content."""
    pod = gateway_of(kustomized(overlay))["spec"]["template"]
    (gateway,) = pod["spec"]["containers"]
    (mount,) = [mount for mount in gateway["volumeMounts"] if mount["name"] == "config"]
    assert "subPath" not in mount
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "config"]
    assert volume["configMap"]["name"] == "llmgateway-config"
    assert not any("checksum" in name for name in pod["metadata"].get("annotations", {}))
    (file,) = [one["value"] for one in gateway["env"] if one["name"] == "LLMGATEWAY_CONFIG"]
    assert file.startswith(mount["mountPath"])


@overlays
def test_nothing_is_reached_that_is_not_named(overlay: Path) -> None:
    found = kustomized(overlay)
    nothing = only(found, "NetworkPolicy", "nothing")["spec"]
    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for one in of_kind(found, "NetworkPolicy"):
        for rule in [*one["spec"].get("ingress", []), *one["spec"].get("egress", [])]:
            assert rule.get("from") or rule.get("to"), one["metadata"]["name"]


def test_secrets_are_never_in_the_repository() -> None:
    for overlay in OVERLAYS:
        assert of_kind(kustomized(overlay), "Secret") == []


# --- the policy can fail


def gateway_container(found: list[Document]) -> Any:
    return gateway_of(found)["spec"]["template"]["spec"]["containers"][0]


def ingress_of(found: list[Document]) -> Any:
    return only(found, "Ingress")


PLANTED: dict[str, Callable[[list[Document]], object]] = {
    "grace 10": lambda found: gateway_of(found)["spec"]["template"]["spec"].update(
        terminationGracePeriodSeconds=10
    ),
    "memory 128Mi": lambda found: gateway_container(found)["resources"]["limits"].update(memory="128Mi"),
    "journal": lambda found: gateway_of(found)["spec"].pop("volumeClaimTemplates"),
    "deleted with its pod": lambda found: gateway_of(found)["spec"].update(
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete", "whenScaled": "Retain"}
    ),
    "livenessProbe": lambda found: gateway_container(found)["livenessProbe"]["httpGet"].update(
        path="/health/ready"
    ),
    "root": lambda found: gateway_of(found)["spec"]["template"]["spec"].pop("securityContext"),
    "token": lambda found: gateway_of(found)["spec"]["template"]["spec"].pop("automountServiceAccountToken"),
    "keeps rights": lambda found: gateway_container(found)["securityContext"].pop("capabilities"),
    "writable": lambda found: gateway_container(found)["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "no bounds": lambda found: gateway_container(found)["resources"].update(requests={}),
    "today": lambda found: gateway_container(found).update(image="ghcr.io/llmgateway/llmgateway"),
    "gives rights": lambda found: found.append({"kind": "Role", "metadata": {"name": "all"}}),
    "/admin is public": lambda found: ingress_of(found)["spec"]["rules"][0]["http"]["paths"][0].update(
        path="/admin"
    ),
    "/ is public": lambda found: ingress_of(found)["spec"]["rules"][0]["http"]["paths"][-1].update(
        pathType="Prefix"
    ),
    "collects": lambda found: ingress_of(found)["metadata"]["annotations"].pop(
        "nginx.ingress.kubernetes.io/proxy-buffering"
    ),
    "cuts": lambda found: ingress_of(found)["metadata"]["annotations"].update(
        {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60"}
    ),
    "bodies": lambda found: ingress_of(found)["metadata"]["annotations"].update(
        {"nginx.ingress.kubernetes.io/proxy-body-size": "1m"}
    ),
    "budgets": lambda found: found.remove(only(found, "PodDisruptionBudget", "llmgateway")),
    "redis hears": lambda found: only(found, "NetworkPolicy", "redis")["spec"].update(ingress=[{}]),
}


@pytest.mark.parametrize("told", PLANTED)
def test_the_policy_can_fail(told: str) -> None:
    found = copy.deepcopy(list(kustomized(KUBERNETES / "overlays/dev")))
    PLANTED[told](found)
    assert any(told in complaint for complaint in complaints(found)), complaints(found)


def test_a_wrong_manifest_is_not_valid() -> None:
    found = copy.deepcopy(gateway_of(kustomized(KUBERNETES / "base")))
    found["spec"]["replicas"] = "two"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(found)


def test_images_are_pinned_to_one_version_each() -> None:
    seen: dict[str, set[str]] = {}
    for overlay in OVERLAYS:
        for _, pod in pods(kustomized(overlay)):
            for container in containers(pod):
                name, _, version = container["image"].rpartition(":")
                seen.setdefault(name, set()).add(version)
    assert {name: versions for name, versions in seen.items() if len(versions) != 1} == {}
