"""Manifests as a cluster would get them: overlays by kubectl, the chart by Helm's own code."""

import functools
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.lab.processes import ROOT, absent, clean_environment

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm" / "llmgateway"
TOOLS = ROOT / ".venv-deploy" / "bin"
GIVEN: Mapping[str, Any] = {"secrets": {"existing": "llmgateway"}}
STORES: Mapping[str, Any] = {name: {"enabled": True} for name in ("redis", "mongodb", "ollama", "qdrant")}
WATCHED: Mapping[str, Any] = {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule")}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": GIVEN,
    "everything": {**GIVEN, **STORES, **WATCHED, "trustedProxies": ["10.244.0.0/16"], "workers": 3,
                   "ingress": {"allowedSources": ["192.0.2.0/24"]}, "autoscaling": {"inflight": 1000}},
    "gateway-api": {**GIVEN, "ingress": {"enabled": False}, "metrics": "admin", **WATCHED,
                    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "edge"}]}},
    "vault": {"secrets": {"external": {"enabled": True}}, "autoscaling": {"enabled": False}},
    "bare": {**GIVEN, "networkPolicy": {"enabled": False}, "backup": {"enabled": False},
             "ingress": {"tlsSecret": "", "clusterIssuer": ""}, "config": {"drain": 60, "drain_pause": 1}},
}  # fmt: skip

Document = dict[str, Any]

RENDER = """
import json, sys
import helm_python as helm
helm.disable_logging()
with helm.Chart.load(sys.argv[1]) as chart:
    try:
        rendered = chart.render(json.load(sys.stdin), name=sys.argv[2], namespace="ai-gateway")
    except helm.HelmError as error:
        sys.exit(f"refused: {error}")
json.dump(rendered, sys.stdout)
"""


class Refused(Exception):
    """Helm does not take the values; it says why."""


def tool(name: str) -> Path:
    """A program of the group `deploy`; skips where it is not installed."""
    if not (TOOLS / name).exists():
        absent(name, "make test-deps")
    return TOOLS / name


def documents(text: str) -> list[Document]:
    return [document for document in yaml.safe_load_all(text) if document]


@functools.cache
def kustomized(directory: Path) -> Sequence[Document]:
    if shutil.which("kubectl") is None:
        absent("kubectl", "see https://kubernetes.io/docs/tasks/tools/")
    argv = ["kubectl", "kustomize", str(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def templates(values: Mapping[str, Any], name: str = "llmgateway") -> dict[str, str]:
    """The chart's files, rendered. Raises `Refused`."""
    argv = [str(tool("python")), "-c", RENDER, str(CHART), name]
    done = subprocess.run(
        argv, input=json.dumps(values), env=clean_environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    rendered: dict[str, str] = json.loads(done.stdout)
    return rendered


def rendered(values: Mapping[str, Any], name: str = "llmgateway") -> list[Document]:
    files = templates(values, name)
    return [one for path, text in files.items() if path.endswith(".yaml") for one in documents(text)]


def of_kind(found: Iterable[Document], kind: str, name: str | None = None) -> list[Document]:
    return [one for one in found if one["kind"] == kind and name in (None, one["metadata"]["name"])]


def only(found: Iterable[Document], kind: str, name: str | None = None) -> Document:
    (one,) = of_kind(found, kind, name)
    return one


def pods(found: Iterable[Document]) -> Iterator[tuple[str, Document]]:
    """Everything that runs: the name, and the pod's specification."""
    for one in found:
        where = f"{one['kind']}/{one['metadata']['name']}"
        match one["kind"]:
            case "Pod":
                yield where, one["spec"]
            case "StatefulSet" | "Deployment" | "Job":
                yield where, one["spec"]["template"]["spec"]
            case "CronJob":
                yield where, one["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            case _:
                pass


def containers(pod: Document) -> list[Document]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def gateway_of(found: Iterable[Document]) -> Document:
    """The set of the gateway's pods."""
    (one,) = [
        one for one in of_kind(found, "StatefulSet")
        if one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "llmgateway"
    ]  # fmt: skip
    return one


def file_of(found: Iterable[Document]) -> Document:
    """The gateway's own file, out of its ConfigMap."""
    maps = [one["data"] for one in of_kind(found, "ConfigMap")]
    (text,) = [data["gateway.yaml"] for data in maps if "gateway.yaml" in data]
    file: Document = yaml.safe_load(text)
    return file
