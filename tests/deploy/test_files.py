"""Everything else one may run the gateway with: Compose, Fly, systemd, Argo CD, Terraform."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmgateway.settings import SETTINGS, read_file
from tests.deploy.manifests import CHART, DEPLOY, KUBERNETES, tool
from tests.lab.gateway import Gateway
from tests.lab.identity import TestIdp, new_pair
from tests.lab.processes import ROOT, Program, absent, clean_environment, free_port
from tests.lab.waiting import eventually_answers, wait_until

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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the service `saml` leaves: the very script, on another directory, with a provider that comes up
    late."""
    if shutil.which("openssl") is None:
        absent("openssl", "apt-get install openssl")
    directory, port = tmp_path_factory.mktemp("made"), free_port()
    script = SERVICES["saml"]["command"][-1].replace("/run/llmgateway", str(directory))
    environment = clean_environment(IDP_METADATA=f"http://127.0.0.1:{port}/idp.xml")
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as making:
        pages = directory / "pages"
        pages.mkdir()
        (pages / "idp.xml").write_bytes(TestIdp(new_pair("idp")).metadata())
        wait_until((directory / "sp.crt").exists, "our pair is made", 30)
        serve = [
            sys.executable,
            "-m",
            "http.server",
            str(port),
            "--bind",
            "127.0.0.1",
            "--directory",
            str(pages),
        ]
        with Program(serve, directory / "log"):
            assert making.wait(30) == 0
    return directory


def university(made: Path) -> str:
    """The gateway's file, for a machine that has no /run/llmgateway."""
    return (COMPOSE / "gateway/gateway.yaml").read_text().replace("/run/llmgateway", str(made))


def test_the_gateway_of_compose_has_settings_that_exist(made: Path, tmp_path: Path) -> None:
    assert set(SERVICES["gateway"]["environment"]) <= NAMES
    (tmp_path / "gateway.yaml").write_text(university(made))
    file = read_file(tmp_path / "gateway.yaml", {})
    grace = int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > file.drain + file.drain_pause + 20


async def test_the_university_of_compose_signs_in_at_its_provider(made: Path) -> None:
    public = SERVICES["gateway"]["environment"]["LLMGATEWAY_PUBLIC_URL"]
    async with Gateway.embedded({"LLMGATEWAY_PUBLIC_URL": public}, config=university(made)) as gateway:
        metadata = await gateway.get("/saml/metadata")
        assert metadata.status == 200
        assert f'entityID="{public}/saml/metadata"' in metadata.body.decode()

        async def is_sent_on() -> bool:
            answer = await gateway.get("/saml/login")
            return (answer.header("location") or "").startswith("https://idp.example.org/sso?SAMLRequest=")

        await eventually_answers(is_sent_on, "people are sent to their provider", 10)
        ends = [name for name in await gateway.metrics() if "certificate_expiry" in name]
        metric = "llmgateway_certificate_expiry_timestamp_seconds"
        assert ends == [f'{metric}{{certificate="{one}"}}' for one in ("saml-1", "provider-university")]


def test_the_readme_says_where_the_university_is_and_who_is_in_it() -> None:
    section = (
        (ROOT / "README.md").read_text().partition("## A university on one machine")[2].partition("\n## ")[0]
    )
    told = set(re.findall(r"http://(127\.0\.0\.1:\d+)", section))
    assert told == {
        port.rpartition(":")[0] for service in SERVICES.values() for port in service.get("ports", [])
    }
    realm = yaml.safe_load((COMPOSE / "idp/university.json").read_text())
    for user in realm["users"]:
        assert f"`{user['username']}` / `{user['credentials'][0]['value']}`" in section
    assert "docker compose -f deploy/compose/compose.yaml up" in section


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
