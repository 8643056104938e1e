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
        "tests/control/test_projects.py",
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
KNOWN = {
    "the lengths of the other parts, and the checksum, leave no room for it": {
        ("domain/keys.py", "len(token) != LENGTH"),
        ("domain/keys.py", "len(key_id) != ID_LENGTH"),
        ("domain/keys.py", "len(secret) != SECRET_LENGTH"),
    },
    "the other half says it as well": {
        ("control/accounts.py", "account is None"),
        ("control/keys.py", "not owner.is_active"),  # it is asked again when the key is stored
        ("portal/saml.py", "auth.get_errors()"),
        ("portal/saml.py", "not auth.is_authenticated()"),
        ("portal/saml.py", "not valid"),
        ("portal/sessions.py", "id is None"),
    },
    "only in the moment in which two come at once: tests of all workers, and of doors that open together": {
        ("control/accounts.py", "not await self._is_opened(asked.id, digest)"),
        ("portal/federation.py", "request is not None and await self._shelf.take(ASKED, request) is None"),
    },
    "a name has to be one: control refuses an empty one": {("portal/federation.py", "not subjects[0]")},
    "the server takes requests with one host only": {("portal/origin.py", "len(hosts) != 1")},
    "no guard: who has nothing to sign out from elsewhere signs out here": {
        ("portal/federation.py", "session is None"),
        ("portal/federation.py", 'session.how != "saml"'),
        ("portal/federation.py", "idp is None"),
        ("portal/federation.py", "idp.sign_out_url is None"),
    },
}
"""What may go unnoticed, by the reason."""

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
    figure(
        f"{len(found)} checks taken out, {len(found) - sum(alive)} missed, {sum(alive)} known to be doubled"
    )
    assert survivors <= set().union(*KNOWN.values())
