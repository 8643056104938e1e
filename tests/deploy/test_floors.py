"""Versions that must not be gone below, each for a fault that is known; and those that belong together."""

import re

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.deploy.sbom import canonical, locked
from tests.lab.processes import ROOT

# Why: the advisory, or what was mended there.
FLOORS = {
    "starlette": (">=1.0.1", "CVE-2026-48710, policy decided on a path that the Host header can bend"),
    "gunicorn": (">=23.0", "CVE-2024-1135 and CVE-2024-6827, smuggled requests"),
    "h11": (">=0.16", "CVE-2025-43859, lax ends of chunks"),
    "redis": (">=8.0", "a cancelled command hands its reply to the next one"),
    "python3-saml": (">=1.16", "signatures of assertions"),
    "lxml": (">=6.1", "its libxml2 must be that of xmlsec"),
    "xmlsec": (">=1.3.17", "the same"),
    "jinja2": (">=3.1.6", "CVE-2025-27516, a way out of the sandbox"),
    "python-multipart": (">=0.0.18", "CVE-2024-53981, endless boundaries"),
}


@pytest.mark.parametrize("name", FLOORS)
def test_s_sup_05_the_lock_is_above_the_floor(name: str) -> None:
    floor, why = FLOORS[name]
    assert Version(locked(anywhere=True)[name]) in SpecifierSet(floor), why


def test_s_sup_05_whoever_installs_without_the_lock_gets_no_older_one_of_ours() -> None:
    """The requirements of the package itself; h11 is not ours to require."""
    text = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0]
    asked = dict(re.findall(r'"([a-z0-9-]+)>=([0-9.]+)', text))
    for name, (floor, why) in FLOORS.items():
        if canonical(name) in asked:
            assert Version(asked[name]) >= Version(floor.removeprefix(">=")), why
