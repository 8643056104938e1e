"""Every step at which a process can die, once in its own work and once in taking over: nothing is lost,
nothing counts twice, nothing stays reserved."""

import re
import subprocess
from pathlib import Path

from tests.lab.crash_points import DIED
from tests.lab.processes import ROOT, clean_environment, python

LANES = 2  # at once
FEWEST = 150  # steps that a life has
STEP = re.compile(r"(\d+) (\d+) (\d+) (\d+)")


def test_r_fault_42_44_r_acc_01_10_every_crash_point(tmp_path: Path) -> None:
    def begun(lane: int) -> "subprocess.Popen[str]":
        directory = tmp_path / str(lane)
        directory.mkdir()
        argv = python("-m", "tests.lab.crash_points", directory, str(lane), str(LANES))
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, stdout=pipe, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=clean_environment()
        )

    tried: dict[int, list[int]] = {}
    for lane in [begun(number) for number in range(1, 1 + LANES)]:
        said, _ = lane.communicate(timeout=120)
        assert lane.returncode == 0, said[-4000:]
        tried |= {int(step): [int(one), int(two), int(end)] for step, one, two, end in STEP.findall(said)}
    assert sum(codes[0] == DIED for codes in tried.values()) > FEWEST
    assert sum(codes[:2] == [DIED, DIED] for codes in tried.values()) > FEWEST // 2
    last = max(step for step, codes in tried.items() if codes[0] == DIED)
    assert set(range(1, last + 1)) <= tried.keys(), "no step is left out"
