"""What every variant of the manifests must keep, as complaints: figures that depend on each other first.

A Kubernetes schema knows none of this: each rule here is something that would be valid, and wrong.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmgateway.app.application import CUT_SECONDS, SHIP_SECONDS
from llmgateway.edge.draining import LEFTOVER_SECONDS
from tests.deploy.manifests import Document, containers, file_of, gateway_of, of_kind, pods

REST_MIB = 112  # of a worker at rest; measured: 75 to 95
WORKER_MIB = 160  # measured: those at rest, 24 KiB for each of 2,000 streams, and bodies of a few large calls
MASTER_MIB = 60
LONGEST_CALL = 3600  # `deadlines.total`
LARGEST_BODY_MIB = 10  # `max_body`
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
INSIDE = ("/admin", "/metrics", "/health")

Rule = Callable[[Sequence[Document]], Iterator[str]]


def amount(written: Any) -> float:
    """Bytes, or processors."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(written))
    assert found is not None, written
    return float(found[1]) * (0.001 if found[2] == "m" else UNITS.get(found[2], 1))


def grace_exceeds_all_within(found: Sequence[Document]) -> Iterator[str]:
    pod, file = gateway_of(found)["spec"]["template"]["spec"], file_of(found)
    (gateway,) = pod["containers"]
    pre_stop = gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
    inside = pre_stop + file.get("drain_pause", 10) + file.get("drain", 600)
    needed = inside + CUT_SECONDS + LEFTOVER_SECONDS + SHIP_SECONDS
    if pod["terminationGracePeriodSeconds"] <= needed:
        grace = pod["terminationGracePeriodSeconds"]
        yield f"grace {grace} is not above {needed:g} s of preStop, drain and flush"


def memory_is_enough_for_the_workers(found: Sequence[Document]) -> Iterator[str]:
    (gateway,) = gateway_of(found)["spec"]["template"]["spec"]["containers"]
    limits = gateway["resources"]["limits"]
    given = [one["value"] for one in gateway["env"] if one["name"] == "WEB_CONCURRENCY"]
    workers = int(given[0]) if given else -(-amount(limits["cpu"]) // 1)
    needed = MASTER_MIB + workers * WORKER_MIB
    if amount(limits["memory"]) < needed * 2**20:
        yield f"memory {limits['memory']} is not enough for {workers:g} workers: {needed:g} MiB"


def the_journal_outlives_the_pod(found: Sequence[Document]) -> Iterator[str]:
    spec = gateway_of(found)["spec"]
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    (gateway,) = spec["template"]["spec"]["containers"]
    mounts = gateway["volumeMounts"]
    mounted = {mount["name"] for mount in mounts if mount["mountPath"] == "/var/lib/llmgateway"}
    if not mounted or mounted - claims:
        yield "the journal is not on a volume of its own"
    if set(spec.get("persistentVolumeClaimRetentionPolicy", {}).values()) != {"Retain"}:
        yield "a journal may be deleted with its pod"


def probes_look_where_they_should(found: Sequence[Document]) -> Iterator[str]:
    (gateway,) = gateway_of(found)["spec"]["template"]["spec"]["containers"]
    live, ready = "/health/live", "/health/ready"
    expected = {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}
    for probe, path in expected.items():
        if gateway.get(probe, {}).get("httpGet", {}).get("path") != path:
            yield f"{probe} does not ask {path}"


def pods_are_restricted(found: Sequence[Document]) -> Iterator[str]:
    """The standard of that name, a read-only root, no token, and bounds."""
    for where, pod in pods(found):
        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            yield f"{where} may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{where} has no seccomp profile"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{where} gets a token"
        for container in containers(pod):
            yield from (f"{where}/{container['name']} {wrong}" for wrong in _open_ways(container))


def _open_ways(container: Document) -> Iterator[str]:
    closed = container.get("securityContext", {})
    if closed.get("allowPrivilegeEscalation") is not False or closed.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps rights"
    if closed.get("readOnlyRootFilesystem") is not True:
        yield "has a writable root"
    bounds = container.get("resources", {})
    if any(name not in bounds.get(side, {}) for side in ("requests", "limits") for name in ("cpu", "memory")):
        yield "has no bounds"
    if re.search(r"(:latest|/[^:@]+)$", container["image"]):
        yield f"runs whatever {container['image']} is today"


def the_api_gives_no_rights(found: Sequence[Document]) -> Iterator[str]:
    for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield from (f"{kind}/{one['metadata']['name']} gives rights" for one in of_kind(found, kind))


def public_paths(found: Sequence[Document]) -> Iterator[tuple[str, str]]:
    for one in of_kind(found, "Ingress"):
        for rule in one["spec"]["rules"]:
            yield from ((path["pathType"], path["path"]) for path in rule["http"]["paths"])
    for one in of_kind(found, "HTTPRoute"):
        for rule in one["spec"]["rules"]:
            yield from ((match["path"]["type"], match["path"]["value"]) for match in rule["matches"])


def operators_stay_inside(found: Sequence[Document]) -> Iterator[str]:
    for kind, path in public_paths(found):
        if path.startswith(INSIDE) or (path == "/" and kind != "Exact"):
            yield f"{path} is public"


def streams_pass_unhindered(found: Sequence[Document]) -> Iterator[str]:
    prefix = "nginx.ingress.kubernetes.io/"
    for one in of_kind(found, "Ingress"):
        said = one["metadata"]["annotations"]
        buffering = ("proxy-buffering", "proxy-request-buffering")
        if {said.get(f"{prefix}{name}") for name in buffering} != {"off"}:
            yield "the ingress collects streams"
        if min(int(said.get(f"{prefix}proxy-{way}-timeout", 60)) for way in ("read", "send")) <= LONGEST_CALL:
            yield "the ingress cuts long streams"
        if int(said.get(f"{prefix}proxy-body-size", "1m").removesuffix("m")) <= LARGEST_BODY_MIB:
            yield "the ingress refuses bodies that the gateway takes"
    for one in of_kind(found, "HTTPRoute"):
        for rule in one["spec"]["rules"]:
            if int(rule["timeouts"]["request"].removesuffix("s")) <= LONGEST_CALL:
                yield "the route cuts long streams"


def one_pod_at_a_time(found: Sequence[Document]) -> Iterator[str]:
    labels = gateway_of(found)["spec"]["template"]["metadata"]["labels"]
    budgets = [
        one for one in of_kind(found, "PodDisruptionBudget")
        if one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ]  # fmt: skip
    if len(budgets) != 1:
        yield f"{len(budgets)} budgets for the gateway's disruption"


def stores_hear_the_gateway_only(found: Sequence[Document]) -> Iterator[str]:
    """Each store that is brought along has a policy, and the gateway is let out to it."""
    may = {"redis": {"llmgateway"}, "mongodb": {"llmgateway", "llmgateway-backup", "mongodb"}}
    for name, callers in may.items():
        if not any(where.endswith(f"/{name}") for where, _ in pods(found)):
            continue
        policies = of_kind(found, "NetworkPolicy", name)
        heard = {
            peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
            for policy in policies
            for rule in policy["spec"].get("ingress", [])
            for peer in rule.get("from", [{}])
        }  # fmt: skip
        if heard != callers:
            yield f"{name} hears {heard}"


RULES: tuple[Rule, ...] = (
    grace_exceeds_all_within, memory_is_enough_for_the_workers, the_journal_outlives_the_pod,
    probes_look_where_they_should, pods_are_restricted, the_api_gives_no_rights, operators_stay_inside,
    streams_pass_unhindered, one_pod_at_a_time, stores_hear_the_gateway_only,
)  # fmt: skip


def complaints(found: Sequence[Document]) -> list[str]:
    return [complaint for rule in RULES for complaint in rule(found)]
