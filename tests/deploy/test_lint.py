"""The linters of what is not Python: each passes on what is here, and fails on a planted fault."""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, KUBERNETES, VARIANTS, kustomized, rendered, tool
from tests.lab.processes import ROOT, clean_environment

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
DOCKERFILES = [ROOT / "Dockerfile", DEPLOY / "fly/Dockerfile"]
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
READS, WRITES = "read", {"packages", "id-token", "attestations", "contents", "issues"}

workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def lint(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    argv = [tool(str(words[0])), *words[1:]]
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=90, check=False, env=clean_environment(), cwd=ROOT,
        **options,
    )  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(path.read_text(), yaml.BaseLoader)  # `on` is a word here
    return found


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in read(path)["jobs"].values():
        yield from job["steps"]


def test_actionlint_takes_the_workflows() -> None:
    done = lint("actionlint", "-shellcheck=", "-pyflakes=", *WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_actionlint_can_fail(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ no.such }}'}]}}\n")
    assert lint("actionlint", "-shellcheck=", "-pyflakes=", wrong).returncode != 0


@workflows
def test_s_sup_11_actions_are_pinned_by_commit(path: Path) -> None:
    used = [(step["uses"], line) for step in steps(path) if "uses" in step for line in [path.read_text()]]
    assert [uses for uses, _ in used if not PINNED.fullmatch(uses)] == []
    for uses, text in used:
        assert re.search(rf"{re.escape(uses)} # v\d", text), f"{uses} does not say its version"


@workflows
def test_s_sup_11_a_workflow_may_as_little_as_it_can(path: Path) -> None:
    whole = read(path)
    assert whole["permissions"] == {"contents": READS}
    for name, job in whole["jobs"].items():
        assert "timeout-minutes" in job, name
        may = {what for what, level in job.get("permissions", {}).items() if level == "write"}
        assert may <= WRITES
    if "pull_request" in whole["on"]:
        for name, job in whole["jobs"].items():
            if any(level == "write" for level in job.get("permissions", {}).values()):
                assert "github.event_name == 'push'" in job["if"] or "refs/heads/main" in job["if"], name
    assert "pull_request_target" not in whole["on"]


@workflows
def test_s_sup_11_no_token_lives_long(path: Path) -> None:
    assert "secrets." not in path.read_text()
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


@workflows
def test_s_sup_11_nobody_writes_into_a_shell(path: Path) -> None:
    """What others named reaches a script as a variable only."""
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_takes_the_dockerfiles(path: Path) -> None:
    done = lint("hadolint", path)
    assert done.returncode == 0, done.stdout


def test_hadolint_can_fail(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && sudo apt-get install vim\n")
    assert lint("hadolint", tmp_path / "Dockerfile").returncode != 0


def test_yamllint_takes_everything() -> None:
    done = lint("yamllint", "--strict", "-c", DEPLOY / "yamllint.yaml", DEPLOY, ROOT / ".github")
    assert done.returncode == 0, done.stdout


OPEN_POD: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "open"},
    "spec": {"containers": [{"name": "a", "image": "a:1", "securityContext": {"privileged": True}}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def failed_checks(tmp_path_factory: pytest.TempPathFactory) -> Sequence[tuple[str, str]]:
    """What checkov says, by file: of all that is applied, and of a pod with a planted fault. It takes seconds
    to start, so it is started once."""
    tool("checkov")
    directory = tmp_path_factory.mktemp("applied")
    for name in ("dev", "prod"):
        found = kustomized(KUBERNETES / "overlays" / name)
        (directory / f"{name}.yaml").write_text(yaml.safe_dump_all(found))
    (directory / "chart.yaml").write_text(yaml.safe_dump_all(rendered(VARIANTS["everything"])))
    (directory / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
    (directory / "planted.yaml").write_text(yaml.safe_dump(OPEN_POD))
    config = DEPLOY / "checkov.yaml"
    done = lint("checkov", "--config-file", config, "-d", directory, "-o", "json", "--skip-download")
    told = json.loads(done.stdout)
    reports = told if isinstance(told, list) else [told]
    assert all("results" in report for report in reports), done.stdout[:500]
    return [
        (Path(one["file_path"]).name, f"{one['check_id']} {one['resource']}: {one['check_name']}")
        for report in reports for one in report["results"]["failed_checks"]
    ]  # fmt: skip


def test_checkov_knows_no_mistake_in_what_is_applied(failed_checks: Sequence[tuple[str, str]]) -> None:
    assert [told for name, told in failed_checks if name != "planted.yaml"] == []


def test_checkov_can_fail(failed_checks: Sequence[tuple[str, str]]) -> None:
    assert any("privileged" in told for name, told in failed_checks if name == "planted.yaml")
