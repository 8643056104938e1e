"""What is installed is what the lock says, runs nothing by being installed, and calls nobody."""

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.deploy.sbom import locked
from tests.lab.processes import ROOT, absent, clean_environment

LOCKS = sorted(ROOT.glob("requirements*.lock"))
PIN = re.compile(r"^[a-z0-9][a-z0-9._-]*==[^\s;]+(?: ;.*)?(?: \\)?$", re.IGNORECASE)
HASH = re.compile(r"^ {4}--hash=sha256:[0-9a-f]{64}(?: \\)?$")
# What may run code when any Python starts here, and whose it is. None of it is the gateway's or the lock's.
STARTERS = {
    "a1_coverage.pth": "coverage: measures the processes that tests start",
    "distutils-precedence.pth": "setuptools",
    "_virtualenv.pth": "virtualenv",
    "_llmgateway.pth": "the editable install of a checkout: one path",
    "_editable_impl_llmgateway.pth": "the same, as newer hatchlings call it",
}
HOOKS = ("sitecustomize", "usercustomize")
EPOCH = "1767225600"
ALONE = """
import asyncio, sys
from pathlib import Path
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway

async def main():
    async with Gateway.embedded(config="models: [{id: echo, targets: [{provider: echo}]}]") as one:
        key = (await one.create_key("alice")).secret
        for path in ("/health", "/portal", "/openapi.json", "/docs", "/metrics"):
            await one.get(path)
        assert (await one.ask(post(CHAT, chat("echo", stream=True), key))).status == 200
        await one.kill()
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    sys.exit(int(dict(zip(names, values))["OutNoRoutes"]))

asyncio.run(main())
"""


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_s_sup_01_a_lock_pins_everything_by_hash(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if line and not line.lstrip().startswith("#")]
    assert [line for line in lines if not PIN.match(line) and not HASH.match(line)] == []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        assert not PIN.match(line) or HASH.match(after), f"{line} has no hash"


def test_s_sup_01_nothing_is_installed_but_by_hash() -> None:
    """Wherever a lock is installed from: the Makefile, the Dockerfile, the workflows."""
    texts = {
        path: re.sub(r"\\\n\s*", " ", path.read_text())
        for path in (ROOT / "Makefile", ROOT / "Dockerfile", *(ROOT / ".github/workflows").glob("*.yaml"))
    }
    lines = [(path, line) for path, text in texts.items() for line in text.splitlines() if ".lock" in line]
    installs = [(path.name, line) for path, line in lines if " install " in line and "-r " in line]
    assert len(installs) >= 4
    for name, line in installs:
        assert "$(LOCKED)" in line or ("--require-hashes" in line and "--only-binary :all:" in line), name
    assert "LOCKED := --require-hashes --only-binary :all:" in texts[ROOT / "Makefile"]


def wheel(directory: Path, text: str) -> Path:
    """A package of one module."""
    path = directory / "lonely-1.0-py3-none-any.whl"
    meta = "lonely-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lonely.py", text)
        archive.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: lonely\nVersion: 1.0\n")
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")
    return path


def test_s_sup_01_any_drift_fails(tmp_path: Path) -> None:
    """The flags of the Makefile and of the guide, offline, on a wheel that is changed after the lock was
    written."""
    digest = hashlib.sha256(wheel(tmp_path, "x = 1\n").read_bytes()).hexdigest()
    lock = tmp_path / "lock"
    lock.write_text(f"lonely==1.0 --hash=sha256:{digest}\n")
    flags = ["--require-hashes", "--only-binary", ":all:", "--no-index", "--find-links", str(tmp_path)]
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        *flags,
        "-r",
        str(lock),
    ]

    def install(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*argv, "--target", str(tmp_path / name)], capture_output=True, text=True, timeout=60, check=False
        )

    assert install("as-locked").returncode == 0
    wheel(tmp_path, "x = 2\n")
    done = install("changed")
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "changed" / "lonely.py").exists()


def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def starters(names: list[str]) -> list[str]:
    """What Python runs by itself when it starts, of such files."""
    return [name for name in names if name.endswith(".pth") or Path(name).stem in HOOKS]


def test_s_sup_04_nothing_of_the_lock_runs_by_itself() -> None:
    found = {name: one for name in locked() if (one := installed(name)) is not None}
    assert len(found) > 20
    for name, one in found.items():
        top = [str(file) for file in one.files or () if len(file.parts) == 1]
        assert starters(top) == [], name


def test_s_sup_04_nothing_else_here_does_that_is_not_known() -> None:
    site = Path(sysconfig.get_path("purelib"))
    assert set(starters([path.name for path in site.iterdir()])) <= set(STARTERS)
    for path in site.glob("*llmgateway.pth"):
        assert "import" not in path.read_text()


def test_s_sup_04_the_scan_can_fail() -> None:
    assert starters(["six.py", "evil.pth", "sitecustomize.py", "a/b.py"]) == ["evil.pth", "sitecustomize.py"]


def built(checkout: Path) -> str:
    """The hash of the wheel, built as the Dockerfile does."""
    quiet = ["-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        *quiet,
        "--wheel-dir",
        str(checkout / "dist"),
        str(checkout),
    ]
    subprocess.run(
        argv, check=True, capture_output=True, timeout=60, env=clean_environment(SOURCE_DATE_EPOCH=EPOCH)
    )
    (path,) = (checkout / "dist").glob("*.whl")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_s_sup_10_the_same_source_makes_the_same_wheel(tmp_path: Path) -> None:
    """In two places, with other times and rights of the files."""
    assert EPOCH in (ROOT / "Dockerfile").read_text()
    skipped = shutil.ignore_patterns("__pycache__")
    for name in ("a", "b/deeper"):
        checkout = tmp_path / name
        shutil.copytree(ROOT / "llmgateway", checkout / "llmgateway", ignore=skipped)
        for file in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / file, checkout / file)
    for path in (tmp_path / "b").rglob("*.py"):
        path.touch()
        path.chmod(0o600)
    first, second = built(tmp_path / "a"), built(tmp_path / "b/deeper")
    assert first == second
    (tmp_path / "a/llmgateway/asgi.py").write_text('"""Another."""\n')
    shutil.rmtree(tmp_path / "a/dist")
    assert built(tmp_path / "a") != first, "the hash tells sources apart"


def test_s_sup_08_it_calls_nobody(tmp_path: Path) -> None:
    """In a network of nothing but loopback: it starts and serves, and the kernel has never had to say that
    there is no way to somewhere."""
    apart = ["unshare", "--map-root-user", "--net"]
    for part in ("unshare", "ip"):
        if shutil.which(part) is None:
            absent(part, "apt-get install util-linux iproute2")
    if subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        absent("the right to make a network namespace", "run it as root")
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    inside = f"ip link set lo up && exec {sys.executable} {script}"
    done = subprocess.run(
        [*apart, "sh", "-ec", inside], env=clean_environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
