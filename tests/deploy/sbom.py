"""What the lock says is installed, and what a bill of materials says."""

import re
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement

from tests.lab.processes import ROOT

ROOT_PACKAGE = "llmgateway"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path = ROOT / "requirements.lock", *, anywhere: bool = False) -> dict[str, str]:
    """Name and version of everything that the lock installs on this machine, or on any."""
    found = {}
    for line in lock.read_text().splitlines():
        if not re.match(r"[A-Za-z0-9]", line):
            continue
        wanted = Requirement(line.removesuffix("\\").strip())
        if anywhere or wanted.marker is None or Marker(str(wanted.marker)).evaluate():
            (only,) = wanted.specifier
            found[canonical(wanted.name)] = only.version
    return found


def listed(bill: dict[str, Any]) -> dict[str, str]:
    """Name and version of everything in a CycloneDX document."""
    return {canonical(part["name"]): part["version"] for part in bill.get("components", [])}
