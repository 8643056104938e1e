"""Whatever dies: people are served within five seconds, limits hold, the ledger is exact, and readiness says
what a balancer should know."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.capacity.tables import with_tables
from tests.disasters.scenes import LIMIT, SCENES
from tests.disasters.table import HEAD, PAGE, seen_table
from tests.lab.processes import absent, clean_environment

APART = ["unshare", "--map-root-user", "--net"]
SOON = 5.0  # seconds
GONE = {"gunicorn's master", "a whole gateway", "the cable of a node"}
HANGS = {"the cable of a node"}  # what is under way there: nobody hears that it will not go on
# Where a limit does not hold, as the page says: who is cut off may let in its part of what was left, while
# the others give all of it until they notice.
MOST = {"the cable of a node": LIMIT + LIMIT // 2}
SECONDS = 60 + 60 * len(SCENES)


@pytest.mark.soak
@pytest.mark.e2e
def test_whatever_dies_people_are_served(tmp_path: Path, figure: Callable[[str], None]) -> None:
    for part in ("unshare", "nsenter", "ip", "haproxy"):
        if shutil.which(part) is None:
            absent(part, "apt-get install util-linux iproute2 haproxy")
    if subprocess.run([*APART, "true"], check=False, capture_output=True).returncode:
        absent("the right to make a network namespace", "run it as root")
    out = tmp_path / "seen.json"
    done = subprocess.run(
        [*APART, sys.executable, "-m", "tests.disasters", str(out)], env=clean_environment(), timeout=SECONDS,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    found: dict[str, dict[str, Any]] = json.loads(out.read_text())
    assert list(found) == [scene.name for scene in SCENES]
    for name, seen in found.items():
        assert seen["pause"] < SOON, (name, seen)
        assert seen["wait"] < SOON or name in HANGS, (name, seen)
        assert seen["limited"] <= MOST.get(name, LIMIT), (name, seen)
        assert bool(seen["unready"]) == (name in GONE), (name, seen)
        assert set(seen["unready"]) <= {"10.99.0.12"}, (name, seen)
        assert sum(seen["failed"].values()) < seen["whole"] / 10, (name, seen)
    figure(", ".join(f"{name} {seen['wait']:.1f} s, {seen['limited']} calls" for name, seen in found.items()))
    if "WRITE_PAGES" in os.environ:
        PAGE.write_text(with_tables(PAGE.read_text(), {"seen": lambda: seen_table(found)}))


def test_the_page_tells_of_every_scene() -> None:
    (text,) = re.findall(r"<!-- seen -->\n(.*?)<!-- /seen -->", PAGE.read_text(), re.DOTALL)
    head, _, *rows = text.strip().splitlines()
    assert tuple(word.strip() for word in head.strip("|").split("|")) == HEAD
    assert [row.split("|")[1].strip() for row in rows] == [scene.name for scene in SCENES]
