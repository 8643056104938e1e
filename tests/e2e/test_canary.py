"""No key, no question and no answer is left anywhere: not in logs, files, databases, metrics or errors."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.deployment import CHAT, CONFIG, environment_of
from tests.lab.breaking import body
from tests.lab.client import chat, post
from tests.lab.dumps import dump_of_mongo, dump_of_redis, files_of, found_in
from tests.lab.gateway import Gateway, serving
from tests.lab.upstream import ScriptedUpstream

pytestmark = pytest.mark.e2e

PROMPT, REPLY, VENDOR = "canary-prompt-5f3a", "canary-reply-77e1", "canary-credential-0c1d"
DEBUG = {"LLMGATEWAY_LOG_LEVEL": "debug", "INFERENCE_KEY": VENDOR}
ENDINGS = (
    "scripted-0",
    "status-400",
    "status-401",
    "status-500",
    "rst-before-headers",
    "unreachable",
    "die-after-7",
    "error-event-after-3",
    "html-200",
    "no-usage",
    "nobody",
    "stalls",
)


async def use(gateway: Gateway, upstream: ScriptedUpstream) -> list[str]:
    """Calls of every ending, with words that must not be kept; the keys that were used."""
    said = f'data: {{"choices":[{{"index":0,"delta":{{"content":"{REPLY}"}},"finish_reason":"stop"}}]}}\n\n'
    upstream.script("scripted-0", body(said.encode() + b"data: [DONE]\n\n"))
    first = await gateway.create_key("canary")
    rotated = (await gateway.admin("POST", f"/keys/{first.id}/rotate", {"overlap_seconds": 60})).json["key"]
    wrong = first.secret[:-1] + ("0" if first.secret[-1] != "0" else "1")
    for secret in (first.secret, rotated, wrong):
        for model in ENDINGS:
            for stream in (False, True):
                asked = post(CHAT, chat(model, PROMPT, stream=stream, user=PROMPT), secret, x_note=PROMPT)
                answer = await gateway.ask(asked)
                assert VENDOR.encode() not in answer.body
                assert secret.encode() not in answer.body
        await gateway.ask(post(CHAT, PROMPT, secret))
        await gateway.get(f"/v1/models?key={secret}", secret)
        await gateway.get(f"/v1/nothing/{secret}", secret)
    async with await gateway.connect() as connection:
        await connection.send(post(CHAT, chat("hold-after-1", PROMPT, stream=True), first.secret))
        await connection.head()
    await gateway.ledger(2 * (2 * len(ENDINGS) - 2) + 1)
    return [first.secret, rotated]


def words_of(keys: list[str]) -> list[str]:
    """Whole keys, their secrets, and beginnings that would be enough to guess by."""
    secrets = [key.split("_")[2] for key in keys]
    return [PROMPT, REPLY, VENDOR, *keys, *secrets, *(secret[:20] for secret in secrets)]


async def test_s_prx_17_18_a_laptop_keeps_no_words(upstream: ScriptedUpstream) -> None:
    async with Gateway.embedded(environment_of(upstream, **DEBUG), config=CONFIG) as gateway:
        keys = await use(gateway, upstream)
        metrics = (await gateway.get("/metrics")).body
        running = {"metrics": metrics, **files_of(gateway.directory, "gateway.yaml")}
        assert any(path.endswith(".journal") for path in running)
        assert any(".sqlite" in path or ".db" in path for path in running), sorted(running)
        assert len(gateway.output()) > 0
        assert found_in(running, words_of(keys)) == []
        await gateway.kill()
        assert found_in(files_of(gateway.directory, "gateway.yaml"), words_of(keys)) == []


async def test_s_prx_17_18_a_fleet_keeps_no_words(
    upstream: ScriptedUpstream, redis_url: str, mongo_url: str
) -> None:
    environment = environment_of(upstream, **DEBUG)
    async with Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=CONFIG) as fleet:
        keys = await use(fleet, upstream)
        texts = {"metrics": (await fleet.get("/metrics")).body, **files_of(fleet.directory, "gateway.yaml")}
        texts["redis"] = await asyncio.to_thread(dump_of_redis, redis_url)
        texts["mongo"] = await asyncio.to_thread(dump_of_mongo, mongo_url)
        assert b"canary" in texts["mongo"], "the user's name is there, so the dump is one"
        assert found_in(texts, words_of(keys)) == []


async def test_settings_are_shown_masked(upstream: ScriptedUpstream) -> None:
    async with Gateway.embedded(serving(upstream.url, "ok-1", INFERENCE_KEY=VENDOR)) as gateway:
        shown = await gateway.admin("GET", "/config")
        assert shown.status == 200
        secrets = [VENDOR, gateway.program.environment["ADMIN_KEY"]]
        assert found_in({"config": shown.body, "log": gateway.output().encode()}, secrets) == []
        environ = Path(f"/proc/{gateway.pid}/cmdline").read_bytes()
        assert found_in({"cmdline": environ}, secrets) == []
