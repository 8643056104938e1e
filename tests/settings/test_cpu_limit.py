"""The limit of a container, as both versions of control groups write it."""

import os
from pathlib import Path

import pytest

from llmgateway.settings.cpu_limit import cpus

OF_MACHINE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


FILES = {"v2": "cpu.max", "quota": "cpu/cpu.cfs_quota_us", "period": "cpu/cpu.cfs_period_us"}


def written(root: Path, **files: str) -> Path:
    (root / "cpu").mkdir()
    for name, text in files.items():
        (root / FILES[name]).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"v2": "400000 100000"}, 4),
        ({"v2": "150000 100000"}, 2),
        ({"v2": "10000 100000"}, 1),
        ({"quota": "300000", "period": "100000"}, 3),
        ({"quota": "50000", "period": "100000"}, 1),
        ({"v2": "200000 100000", "quota": "300000", "period": "100000"}, 2),
    ],
)
def test_the_limit_is_read(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert cpus(written(tmp_path, **files)) == expected


@pytest.mark.parametrize(
    "files",
    [
        {}, {"v2": "max 100000"}, {"quota": "-1", "period": "100000"}, {"v2": ""}, {"v2": "2 0"},
        {"v2": "many 100000"}, {"quota": "100000"},
    ],
)  # fmt: skip
def test_without_a_limit_it_is_what_the_machine_lets_it_use(tmp_path: Path, files: dict[str, str]) -> None:
    assert cpus(written(tmp_path, **files)) == OF_MACHINE


def test_this_machine_has_at_least_one() -> None:
    assert cpus() >= 1
