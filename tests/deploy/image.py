"""The image, really built without a registry or a daemon, and run as a cluster would run it: as nobody in
particular, on a read-only root, in process and mount namespaces of its own.

buildah builds with chroot isolation. Where the base's registry is out of reach a Debian with its own Python
stands in for it under the base's name: that proves the steps of the Dockerfile, not the base.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.processes import ROOT, absent

CACHE = ROOT / ".cache" / "image"
STORE = ("--root", str(CACHE / "store"), "--runroot", str(CACHE / "run"), "--storage-driver", "vfs")
TAG = "localhost/llmgateway:test"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
INSTALL = "apt-get install -y --no-install-recommends buildah debootstrap"
UID = 10001
PATIENCE = 600
CONTAINER = "llmgateway-test"
ENTER = """
root=$1 volume=$2 data=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/dev/shm"
mount --bind "$data" "$volume"
exec "$@"
"""


@dataclass(frozen=True)
class Image:
    """What was built: its files, mounted, and its settings."""

    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for pair in self.config["Env"])

    @property
    def command(self) -> list[str]:
        return [*(self.config.get("Entrypoint") or []), *self.config["Cmd"]]

    def argv(self, data: Path, *words: str, **environment: str) -> list[str]:
        """The command of a container, or `words`, with `data` as its volume: process 1 of a namespace of its
        own, on a root that nobody can write to, without a single capability."""
        pairs = {**self.environment, **environment}
        inside = [
            "chroot",
            str(self.root),
            "setpriv",
            f"--reuid={UID}",
            f"--regid={UID}",
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "env",
            "--ignore-environment",
            f"--chdir={self.config['WorkingDir']}",
            *(f"{name}={value}" for name, value in pairs.items()),
            *(words or self.command),
        ]
        (volume,) = self.config["Volumes"]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*apart, "sh", "-ec", ENTER, "sh", str(self.root), f"{self.root}{volume}", str(data), *inside]

    def size(self) -> int:
        """Bytes of its files."""
        return self.part("/")

    def part(self, path: str) -> int:
        argv = ["du", "-sbx", f"{self.root}{path}"]
        return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[0])


def need() -> None:
    """Skips, or fails in CI, where the image cannot be built."""
    for part in ("buildah", "debootstrap", "unshare", "setpriv"):
        if shutil.which(part) is None:
            absent(part, INSTALL)
    if os.geteuid() != 0:
        absent("the right to make a root file system", "run it as root, or build with docker: make image")


def base_name() -> str:
    found = re.search(r"^ARG BASE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def buildah(*words: str | Path) -> str:
    done = subprocess.run(
        ["buildah", *STORE, *words], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"buildah {words[0]}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def stand_in(name: str) -> None:
    """Puts a Debian with Python into the store under the name of the base; made once and kept."""
    if name in buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
        return
    root = CACHE / "debian"
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    container = buildah("from", "scratch")
    buildah("copy", "--quiet", container, root, "/")
    buildah("commit", "--quiet", "--rm", container, name)


def build() -> Image:
    """The Dockerfile, step by step as it stands."""
    stand_in(base_name())
    trusted = ["--volume", f"{BUNDLE}:{BUNDLE}:ro"] if BUNDLE.exists() else []
    flags = ["--isolation", "chroot", "--pull-never", "--format", "docker"]
    buildah("build", *flags, *trusted, "--tag", TAG, ".")
    if CONTAINER in buildah("containers", "--format", "{{.ContainerName}}").splitlines():
        buildah("rm", CONTAINER)
    buildah("from", "--pull-never", "--name", CONTAINER, TAG)
    buildah("rmi", "--prune", "--force")
    told = json.loads(buildah("inspect", "--type", "image", TAG))
    return Image(Path(buildah("mount", CONTAINER)), told["Docker"]["config"])
