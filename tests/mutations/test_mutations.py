"""A check that can be taken out unnoticed is no check: every mutant of a guarding module fails some test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.processes import ROOT, clean_environment
from tests.mutations.mutants import Mutant, mutants

SECONDS = 300
SAML = ("tests/portal/test_saml_guard.py", "tests/portal/test_saml.py", "tests/portal/test_federation.py")
GUARDS = {
    "flow/authenticate.py": ("tests/flow/test_authenticate.py",),
    "domain/keys.py": ("tests/domain/test_keys.py", "tests/flow/test_authenticate.py"),
    "flow/admit.py": ("tests/flow/test_admit.py",),
    "admin/gate.py": ("tests/admin/test_gate.py",),
    "control/accounts.py": (
        "tests/control/test_accounts.py",
        "tests/control/test_names.py",
        "tests/portal/test_sign_in.py",
    ),
    "control/enrol.py": ("tests/control/test_enrol.py", "tests/control/test_names.py"),
    "control/names.py": ("tests/control/test_names.py",),
    "control/keys.py": (
        "tests/control/test_keys.py",
        "tests/control/test_people.py",
        "tests/portal/test_keys.py",
    ),
    "portal/saml_guard.py": SAML,
    "portal/saml.py": SAML,
    "portal/federation.py": SAML,
    "portal/origin.py": ("tests/portal/test_origin.py", "tests/portal/test_door.py"),
    "portal/sessions.py": ("tests/portal/test_sessions.py", "tests/portal/test_door.py"),
    "portal/door.py": ("tests/portal/test_door.py", "tests/portal/test_sign_in.py"),
    "portal/form.py": ("tests/portal/test_form.py", "tests/portal/test_keys.py"),
    "portal/operators/rights.py": ("tests/portal/operators",),
    "edge/protocol.py": ("tests/edge/test_protocol.py",),
    "wire/jsonhead.py": ("tests/wire/test_jsonhead.py", "tests/edge/test_caller.py"),
    "upstream/peers.py": ("tests/upstream/test_peers.py", "tests/upstream/test_pool.py"),
}
KNOWN: dict[tuple[str, str], str] = {}
"""What may go unnoticed, and why: something else refuses the same."""

pytestmark = pytest.mark.soak


def of_all() -> Iterator[tuple[str, Mutant]]:
    for name in GUARDS:
        for mutant in mutants((ROOT / "llmgateway" / name).read_text()):
            yield name, mutant


def lives(home: Path, name: str, mutant: Mutant) -> bool:
    """Whether the tests of its module pass with it."""
    copy = home / f"{name.replace('/', '-')}-{mutant.line}-{abs(hash(mutant.what))}"
    for folder in ("llmgateway", "tests", "config"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "llmgateway" / name).write_text(mutant.source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *GUARDS[name]],
        cwd=copy, env=clean_environment() | {"PYTHONPATH": str(copy)}, capture_output=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    shutil.rmtree(copy)
    return done.returncode == 0


def test_s_sup_12_every_check_that_is_taken_out_is_missed(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    found = list(of_all())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        alive = list(pool.map(lambda one: lives(tmp_path, *one), found))
    survivors = {
        (name, mutant.what) for (name, mutant), is_alive in zip(found, alive, strict=True) if is_alive
    }
    figure(f"{len(found)} checks taken out, {len(found) - sum(alive)} missed, {len(KNOWN)} known")
    assert survivors == KNOWN.keys()
