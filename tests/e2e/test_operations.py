"""The operations guide, followed page by page: every block of commands runs as it is printed, from top to
bottom, beside a gateway that serves; so do the lines of the runbooks."""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient

from tests.deploy.manifests import KUBERNETES, kustomized, rendered
from tests.e2e.deployment import CHAT
from tests.e2e.test_start import Plain
from tests.lab.client import Answer, chat, fetch, post
from tests.lab.gateway import Gateway, serving
from tests.lab.processes import ROOT, absent
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

GUIDE = ROOT / "docs/operations"
PAGES = sorted(GUIDE.glob("*.md"))
RUNBOOKS = sorted((GUIDE / "runbooks").glob("Llm*.md"))
STAND_INS = Path(__file__).parent / "stand_ins"
MODEL = "ok-3"
INDEX = "<!-- not run in `make test`: needs a package index -->"
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`((?:kubectl|llmgateway|helm) [^`]+)`")
UNNAMED = re.compile(r"\b(ID|NAME|MODEL|USER|NEW|FILE|\.\.\.)\b|\.\.\.|<")
CLUSTER = "kubectl -n ai-gateway"
ELSEWHERE = tuple(
    f"{CLUSTER} {verb}" for verb in ("run", "describe", "logs", "get", "top", "port-forward")
)  # only look
STARTED = "llmgateway serve"  # by nearly all tests
WITH_ECHO = "drain_pause: 0\nmodels: [{id: echo, targets: [{provider: echo}]}]\n"


def without_index(text: str) -> str:
    """What can be run here: nothing is downloaded."""
    return text.partition(INDEX)[0] + text.partition(INDEX)[2].partition("## The image")[2]


def blocks(path: Path) -> list[str]:
    text = without_index(path.read_text()) if INDEX in path.read_text() else path.read_text()
    found = []
    for indent, language, body in BLOCK.findall(text):
        assert language == "sh", f"{path.name}: a block that nobody runs"
        found.append("\n".join(line.removeprefix(indent) for line in body.splitlines()))
    return found


def spans(path: Path) -> Iterator[str]:
    """Commands inside sentences; those with a word to be filled in are none."""
    text = BLOCK.sub("", path.read_text())
    for line in SPAN.findall(text):
        if (
            not UNNAMED.search(line)
            and not line.startswith((*ELSEWHERE, STARTED))
            and not line.endswith(" --")
        ):
            yield line


class World:
    """A directory as an operator has it, and the programs."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        programs = directory / "bin"
        programs.mkdir()
        for path in STAND_INS.iterdir():
            script = programs / path.name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {path} "$@"\n')
        (programs / "llmgateway").write_text(f'#!/bin/sh\nexec {sys.executable} -m llmgateway "$@"\n')
        for script in programs.iterdir():
            script.chmod(0o755)
        for name in ("deploy", "requirements.lock", "config"):
            (directory / name).symlink_to(ROOT / name)
        (directory / "manifests.json").write_text(json.dumps(manifests()))
        self.environment = {
            **environment,
            "PATH": f"{programs}{os.pathsep}{environment['PATH']}",
            "REAL_KUBECTL": shutil.which("kubectl") or "",
            "MANIFESTS": str(directory / "manifests.json"),
            "URL": f"http://127.0.0.1:{environment['LLMGATEWAY_PORT']}",
        }

    async def run(self, text: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-ec", text], cwd=self.directory, env=self.environment, text=True,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def manifests() -> Sequence[dict[str, Any]]:
    """What runs in production, and the backup's job."""
    return json.loads(json.dumps(kustomized(KUBERNETES / "overlays/prod"), default=str))  # type: ignore[no-any-return]  # JSON


@pytest.fixture
async def gateway(upstream: ScriptedUpstream, redis_url: str, mongo_url: str) -> AsyncIterator[Gateway]:
    for part in ("curl", "openssl"):
        if shutil.which(part) is None:
            absent(part, f"apt-get install {part}")
    fleet = Gateway.fleet(serving(upstream.url, MODEL), redis_url=redis_url, mongo_url=mongo_url, workers=1)
    async with fleet as running:
        yield running


@pytest.fixture
def world(gateway: Gateway) -> World:
    return World(gateway.directory, gateway.program.environment)


async def ask(gateway: Gateway, key: str) -> Answer:
    return await gateway.ask(post(CHAT, chat(MODEL), key))


def test_every_page_is_in_the_list() -> None:
    listed = re.findall(r"^\| \[([\w-]+\.md)\]", (GUIDE / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [path.name for path in PAGES if path.name != "README.md"]


@pytest.mark.parametrize("path", [*PAGES, *RUNBOOKS], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path: Path) -> None:
    targets = [part.partition(")")[0].partition("#")[0] for part in path.read_text().split("](")[1:]]
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not missing


async def test_the_commands_of_the_guide(gateway: Gateway, world: World) -> None:
    """All pages but those with a test of their own, one after the other, beside one gateway."""
    key = (await gateway.create_key("alice")).secret
    for path in PAGES:
        if path.stem not in ("backup", "from-one-machine"):
            for text in blocks(path):
                await world.run(text)
            assert (await ask(gateway, key)).status == 200, f"the gateway serves after {path.name}"
    rotated = json.loads((world.directory / "rotated.json").read_text())
    assert (await ask(gateway, rotated["key"])).status == 401, "it was revoked"


async def test_the_lines_inside_sentences(world: World) -> None:
    lines = {line for path in (*PAGES, *RUNBOOKS) for line in spans(path)}
    assert len(lines) > 10
    for line in sorted(lines):
        if line.startswith("helm"):
            helm(line)
        else:
            await world.run(line)


def helm(line: str) -> None:
    """What such an installation would be: the chart with these values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("-n")
    parser.add_argument("-f")
    given = parser.parse_intermixed_args(shlex.split(line)[1:])
    if given.words[0] in ("uninstall", "rollback"):
        return
    _, name, chart = given.words
    assert (ROOT / chart / "Chart.yaml").exists()
    values: dict[str, Any] = {"secrets": {"existing": "llmgateway"}}
    for pair in given.set:
        path, _, value = pair.partition("=")
        values[path] = yaml.safe_load(value)
    sets = [one for one in rendered(values, str(name)) if one["kind"] == "StatefulSet"]
    assert str(name) in sets[0]["metadata"]["name"]


async def test_backup_and_restore(gateway: Gateway, world: World) -> None:
    """A day is lost with what came after the dump, and nothing else is."""
    by_hand, in_cluster, restore, after, left_behind, embedded = blocks(GUIDE / "backup.md")
    assert "data/llmgateway.db" in embedded
    kept = (await gateway.create_key("alice", "kept")).secret
    revoked = await gateway.create_key("alice", "revoked")
    for key in (kept, kept, revoked.secret):
        assert (await ask(gateway, key)).status == 200
    before = await gateway.ledger(3)
    await world.run(by_hand)
    await world.run(in_cluster)

    assert (await gateway.admin("DELETE", f"/keys/{revoked.id}")).status < 300
    late = (await gateway.create_key("bob", "late")).secret
    assert (await ask(gateway, late)).status == 200
    await gateway.ledger(4)
    await gateway.stop()

    await world.run(restore)
    await gateway.start()
    await world.run(after)
    await world.run(left_behind)
    assert await gateway.ledger(3) == before
    assert [(await ask(gateway, key)).status for key in (kept, revoked.secret, late)] == [200, 200, 401]
    assert len(await gateway.ledger(5)) == 5
    total = await gateway.admin("GET", "/usage?by=user")
    assert [row["requests"] for row in total.json["data"]] == [5]


async def test_the_copy_of_an_embedded_gateway(tmp_path: Path) -> None:
    """Taken while it serves, and started elsewhere."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (*_, text) = blocks(GUIDE / "backup.md")
    async with Plain(first) as plain:
        found = re.search(r"lgw_\w+", plain.program.output())
        assert found is not None
        await asyncio.to_thread(subprocess.run, ["sh", "-ec", text], cwd=first, check=True)
    shutil.copytree(first / "copy", second / "data")
    async with Plain(second) as plain:
        assert (await fetch(plain.url, post(CHAT, chat("echo"), found[0]))).status == 200


async def test_from_one_machine_to_many(tmp_path: Path, redis_url: str, mongo_url: str) -> None:
    """A key that was made on the laptop works in production, and what was used there is known here."""
    before, secrets, look, move, after = blocks(GUIDE / "from-one-machine.md")
    async with Plain(tmp_path) as plain:
        found = re.search(r"lgw_\w+", plain.program.output())
        assert found is not None
        for _ in range(3):
            assert (await fetch(plain.url, post(CHAT, chat("echo"), found[0]))).status == 200
        world = World(tmp_path, plain.environment)
        await world.run(before)
        assert await asyncio.to_thread(plain.program.stop) == 0
    world.environment |= {"MONGO_URL": mongo_url, "REDIS_URL": redis_url}
    await world.run(secrets)
    assert "Nothing is in the way" in await world.run(look)
    assert "All is there" in await world.run(move)
    given: dict[str, str] = {}
    for name in ("LLMGATEWAY_SECRET_KEYS", "LLMGATEWAY_KEY_PEPPER"):
        file = tmp_path / "secrets" / name.removeprefix("LLMGATEWAY_").lower()
        given |= {name: "", f"{name}_FILE": str(file)}
    fleet = Gateway.fleet(given, redis_url=redis_url, mongo_url=mongo_url, workers=1, config=WITH_ECHO)
    async with fleet as production:
        world.environment = {**fleet.program.environment, "PATH": world.environment["PATH"]}
        await world.run(after)
        assert (await production.ask(post(CHAT, chat("echo"), found[0]))).status == 200
        assert len(await production.ledger(4)) == 4


async def test_a_version_passes_over_what_the_next_one_wrote(gateway: Gateway, mongo_url: str) -> None:
    """Fields that it does not know, in everything that it reads for a call."""
    key = await gateway.create_key("alice")
    assert (await ask(gateway, key.secret)).status == 200
    await gateway.ledger(1)
    with MongoClient[dict[str, Any]](mongo_url) as client:
        database = client.get_default_database()
        for name in ("keys", "users", "records"):
            assert database[name].update_many({}, {"$set": {"of_tomorrow": {"a": [1]}}}).matched_count
    await gateway.restart()

    async def answers() -> bool:
        return (await ask(gateway, key.secret)).status == 200

    await eventually_answers(answers, "the key works")
    assert len(await gateway.ledger(2)) == 2
    for path in ("/users", "/keys", "/usage?by=user"):
        assert (await gateway.admin("GET", path)).status == 200
