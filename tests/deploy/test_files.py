"""Everything else one may run the gateway with: Compose, Fly, systemd, Argo CD, Terraform."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmgateway.settings import SETTINGS, read_file
from tests.deploy.manifests import CHART, DEPLOY, KUBERNETES, tool
from tests.lab.processes import ROOT, absent

COMPOSE = DEPLOY / "compose"
NAMES = {setting.name for setting in SETTINGS} | {f"{one.name}_FILE" for one in SETTINGS if one.is_secret}
PINNED = re.compile(r"[a-z0-9.-]+(/[a-z0-9._-]+)+:v?[0-9]+\.[0-9]+(\.[0-9]+)?[a-z0-9.-]*")


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


SERVICES = compose()["services"]
WORDS = {
    "build", "image", "command", "environment", "volumes", "ports", "networks", "network_mode", "depends_on",
    "healthcheck", "restart", "read_only", "cap_drop", "security_opt", "tmpfs", "user", "stop_grace_period",
}  # fmt: skip

services = pytest.mark.parametrize("name", SERVICES)


@services
def test_a_service_has_known_words_and_a_pinned_image(name: str) -> None:
    service = SERVICES[name]
    assert set(service) <= WORDS
    assert service.get("build") or PINNED.fullmatch(service["image"]), service["image"]


@services
def test_what_a_service_names_is_there(name: str) -> None:
    service, whole = SERVICES[name], compose()
    assert set(service.get("depends_on", [])) <= set(SERVICES)
    assert set(service.get("networks", [])) <= set(whole["networks"])
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        assert (COMPOSE / source).exists() if source.startswith(".") else source in whole["volumes"], source
    waits = service.get("depends_on", {})
    conditions = waits if isinstance(waits, dict) else {}
    healthy = [other for other, wait in conditions.items() if wait["condition"] == "service_healthy"]
    assert all("healthcheck" in SERVICES[other] for other in healthy)


@services
def test_only_this_machine_reaches_a_service(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_stores_and_models_are_not_on_the_front() -> None:
    for name in ("redis", "mongodb"):
        assert SERVICES[name]["networks"] == ["stores"]
    assert compose()["networks"]["stores"]["internal"]


def test_the_gateway_of_compose_has_settings_that_exist(tmp_path: Path) -> None:
    assert set(SERVICES["gateway"]["environment"]) <= NAMES
    file = read_file(COMPOSE / "gateway/gateway.yaml", {})
    grace = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > file.drain + file.drain_pause + 20


def test_the_secrets_of_compose_are_made_once(tmp_path: Path) -> None:
    """The very script, on another directory."""
    script = SERVICES["secrets"]["command"][-1].replace("/run/llmgateway", str(tmp_path))
    run = ["python3", "-c", script]
    subprocess.run(run, check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    subprocess.run(run, check=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
    assert all(len(value) == 64 for value in made.values())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    environment = SERVICES["gateway"]["environment"]
    files = {name.removesuffix("_FILE") for name in environment if name.endswith("_FILE")}
    assert files == set(made)


def test_the_university_has_people_and_a_service_provider() -> None:
    realm = yaml.safe_load((COMPOSE / "idp/university.json").read_text())
    assert {user["username"] for user in realm["users"]} == {"alice", "bob"}
    (client,) = realm["clients"]
    public = SERVICES["gateway"]["environment"]["LLMGATEWAY_PUBLIC_URL"]
    assert client["clientId"] == f"{public}/saml/metadata"
    assert client["attributes"]["saml_assertion_consumer_url_post"] == f"{public}/saml/acs"
    attributes = client["attributes"]
    assert attributes["saml.assertion.signature"] == attributes["saml.server.signature"] == "true"
    mapped = {mapper["config"]["attribute.name"] for mapper in client["protocolMappers"]}
    assert {"urn:oid:1.3.6.1.4.1.5923.1.1.1.6", "urn:oid:1.3.6.1.4.1.5923.1.1.1.1"} <= mapped


def test_fly() -> None:
    told = tomllib.loads((DEPLOY / "fly/fly.toml").read_text())
    assert set(told["env"]) <= NAMES
    (mount,) = told["mounts"]
    assert mount["destination"] == "/var/lib/llmgateway"
    assert told["http_service"]["internal_port"] == 8080
    assert told["http_service"]["checks"][0]["path"] == "/health/ready"
    assert told["vm"][0]["memory"] == "1gb"
    dockerfile = (DEPLOY / "fly" / told["build"]["dockerfile"]).read_text()
    assert re.search(r"exec setpriv .*llmgateway serve", dockerfile), "no shell stays in between"


def unit() -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd/llmgateway.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            lines.setdefault(name, []).append(value)
    return lines


def test_the_unit_of_systemd() -> None:
    told = unit()
    variables = {pair.partition("=")[0] for line in told["Environment"] for pair in line.split()}
    assert variables - {"PYTHONUNBUFFERED"} <= NAMES
    assert {line.partition(":")[0] for line in told["LoadCredential"]} == {
        name.removesuffix("_FILE") for name in variables if name.endswith("_FILE")
    }
    assert int(told["TimeoutStopSec"][0]) > 600 + 10 + 30
    assert told["KillMode"] == ["mixed"]
    assert told["ExecStart"][0].endswith("gunicorn -c config/gunicorn.conf.py llmgateway.asgi:app")


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        absent("systemd-analyze", "apt-get install systemd")
    text = (DEPLOY / "systemd/llmgateway.service").read_text()
    path = tmp_path / "llmgateway.service"
    path.write_text(text.replace("/opt/llmgateway/bin/gunicorn", "/bin/true"))
    argv = ["systemd-analyze", "verify", "--man=no", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_argo_cd_leads_to_what_is_here() -> None:
    project = yaml.safe_load((DEPLOY / "argocd/project.yaml").read_text())
    application = yaml.safe_load((DEPLOY / "argocd/application.yaml").read_text())
    source = application["spec"]["source"]
    assert (ROOT / source["path"] / "kustomization.yaml").exists()
    assert source["repoURL"] in project["spec"]["sourceRepos"]
    assert application["spec"]["project"] == project["metadata"]["name"]
    assert {one["namespace"] for one in project["spec"]["destinations"]} == {"ai-gateway"}
    assert "clusterRoleWhitelist" not in project["spec"]


# --- Terraform

TERRAFORM = DEPLOY / "terraform"


def blocks() -> Iterator[tuple[str, Any]]:
    """All blocks of the configuration, as checkov's reader of HCL has them."""
    read = "import hcl2, json, sys; print(json.dumps([hcl2.load(open(path)) for path in sys.argv[1:]]))"
    argv = [str(tool("python")), "-c", read, *map(str, sorted(TERRAFORM.glob("*.tf")))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for file in json.loads(done.stdout):
        for kind, found in file.items():
            yield from ((kind, one) for one in found) if isinstance(found, list) else ()


def bare(value: Any) -> str:
    """The reader gives every value as a list of one."""
    return str(value[0] if isinstance(value, list) else value).strip('"')


def test_terraform_can_be_read_and_pins_everything() -> None:
    kinds = list(blocks())
    modules = [body for kind, one in kinds if kind == "module" for body in one.values()]
    assert modules
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", bare(body["version"])) for body in modules), modules
    charts = [
        body for kind, one in kinds if kind == "resource" and "helm_release" in map(bare, one)
        for name, releases in one.items() for body in releases.values()
    ]  # fmt: skip
    assert len(charts) == 3
    assert all("version" in body or "helm/llmgateway" in str(body["chart"]) for body in charts)


def test_terraform_names_variables_and_values_that_exist() -> None:
    text = "\n".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    declared = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared
    locals_used = set(re.findall(r"\blocal\.(\w+)", text))
    assert all(re.search(rf"^  {name}\s+=", text, re.MULTILINE) for name in locals_used)
    example = set(re.findall(r"^(\w+)\s+=", (TERRAFORM / "example.tfvars").read_text(), re.MULTILINE))
    assert example <= declared
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    (given,) = re.findall(r"values = \[yamlencode\(\{\n    host(.*?)\n  \}\)\]", text, re.DOTALL)
    assert set(re.findall(r"^    (\w+)\s+=", given, re.MULTILINE)) <= set(values)


def test_terraform_is_formatted() -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed; its own syntax is checked by python-hcl2")
    argv = ["terraform", f"-chdir={TERRAFORM}", "fmt", "-check", "-diff"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_cluster_issuer_is_the_one_that_is_asked_for() -> None:
    issuer = yaml.safe_load((KUBERNETES / "cluster-issuer.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert issuer["metadata"]["name"] == values["ingress"]["clusterIssuer"]
