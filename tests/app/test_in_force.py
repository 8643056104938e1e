import logging
import os
from pathlib import Path

import pytest

from llmgateway.app.in_force import InForce
from llmgateway.settings import Settings

MODEL = "models: [{id: m, targets: [{provider: echo}]}]\n"


def rewrite(path: Path, text: str) -> None:
    """Every version has a time of its own, however coarse the clock of the file system is."""
    path.write_text(text)
    stamp = path.stat().st_mtime_ns + 1_000_000_000 * len(text)
    os.utime(path, ns=(stamp, stamp))


def taken_over(in_force: InForce) -> bool:
    """A change counts when it has stood still for a look."""
    return any([in_force.take_over_changes(), in_force.take_over_changes()])


def names(in_force: InForce) -> list[str]:
    return [model.id for model in in_force.configuration().base_models]


def test_a_changed_file_is_taken_over_whole(settings: Settings, config: Path) -> None:
    in_force = InForce(settings)
    assert names(in_force) == ["echo"]
    assert not taken_over(in_force)
    rewrite(config, MODEL + "keepalive: 3\n")
    assert taken_over(in_force)
    assert names(in_force) == ["m", "echo"]
    assert (in_force.settings.keepalive, in_force.version) == (3, 2)
    assert not taken_over(in_force)


def test_a_file_made_after_the_start_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_force = InForce(Settings.load({"LLMGATEWAY_DATA_DIR": str(tmp_path / "data")}))
    assert in_force.settings.config is None
    assert not taken_over(in_force)
    (tmp_path / "config").mkdir()
    rewrite(tmp_path / "config/gateway.yaml", MODEL)
    assert taken_over(in_force)
    assert names(in_force) == ["m", "echo"]
    assert in_force.settings.config == Path("config/gateway.yaml")


def test_a_wrong_file_is_complained_about_and_the_old_one_stays(
    settings: Settings, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_force = InForce(settings)
    rewrite(config, "modells: []\nkeepalive: no\n")
    assert not taken_over(in_force)
    assert (in_force.settings, in_force.version) == (settings, 1)
    (line,) = caplog.records
    assert len(line.__dict__["fields"]["complaints"]) == 2
    rewrite(config, MODEL)
    assert taken_over(in_force)


def test_shares_and_rules_are_taken_over_without_a_restart(settings: Settings, config: Path) -> None:
    in_force = InForce(settings)
    rule = "{name: r, when: everybody, grants: {roles: [user], models: [m]}}"
    shares = "fair_share: {projects: {thesis: 2}, roles: {admin: 3}, weights: {completion: 4}}"
    rewrite(config, f"{shares}\npolicy: {{rules: [{rule}]}}\n")
    assert taken_over(in_force)
    weights = in_force.configuration().limits.weights
    assert (weights.projects, weights.roles) == ({"thesis": 2.0}, {"admin": 3.0})
    assert (weights.prompt, weights.completion) == (1.0, 4.0)
    assert [rule.name for rule in in_force.configuration().policy.rules] == ["r"]


def test_what_needs_a_restart_is_told_and_nothing_of_the_file_is_taken_over(
    settings: Settings, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rewrite(config, "max_body: 1MiB\n")
    assert taken_over(InForce(settings)) is False  # it was there from the start
    in_force = InForce(settings)
    rewrite(config, f"max_body: 2MiB\ncurrency: USD\n{MODEL}")
    assert not taken_over(in_force)
    assert in_force.settings == settings
    assert caplog.records[-1].__dict__["fields"]["complaints"] == [
        "currency: it has changed, which takes a restart",
        "max_body: it has changed, which takes a restart",
    ]
    rewrite(config, f"max_body: {settings.max_body}B\n{MODEL}")
    assert taken_over(in_force)


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    settings = Settings.load({"LLMGATEWAY_DATA_DIR": str(tmp_path)}, config=None)
    assert not taken_over(InForce(settings))
