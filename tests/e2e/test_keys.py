"""The life of a key on every worker: made, used, restricted, rotated, suspended, revoked, expired."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from typing import Any

import pytest
from redis import Redis

from llmgateway.domain.keys import mint, mint_for
from llmgateway.stores.redis import HOLD, KEYS
from tests.e2e.command import run
from tests.e2e.deployment import CHAT, Tenant
from tests.lab.client import Answer, Connection, Request, chat, post
from tests.lab.gateway import Gateway, IssuedKey
from tests.lab.likeness import guessed, interleaved
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

CONNECTIONS = 12  # enough for every worker to have some
TOLD_APART = 0.68  # of guesses that are right; 200 of each kind are within 0.07 of a half by chance alone
OBEYED_WITHIN = 1.0  # seconds until every worker has heard of a change


async def statuses(gateway: Gateway, secret: str, model: str = "ok-1") -> set[int]:
    """What a key gets on many new connections."""
    asked = (gateway.ask(post(CHAT, chat(model), secret)) for _ in range(CONNECTIONS))
    return {answer.status for answer in await asyncio.gather(*asked)}


async def refused_everywhere(gateway: Gateway, secret: str) -> float:
    """Seconds until no worker takes the key any more."""
    began = time.monotonic()

    async def is_refused() -> bool:
        return await statuses(gateway, secret) == {401}

    await eventually_answers(is_refused, "every worker refuses the key", 5)
    return time.monotonic() - began


async def warm(tenant: Tenant, secret: str) -> None:
    """Every worker knows the key."""
    for _ in range(3):
        assert await statuses(tenant.gateway, secret) == {200}


# --- made and used


async def test_a_key_is_shown_once_and_works_at_once(tenant: Tenant) -> None:
    made = await tenant.gateway.create_key(tenant.user, "phone")
    assert made.secret.startswith(f"lgw_{made.id}_")
    assert await statuses(tenant.gateway, made.secret) == {200}
    shown = await tenant.gateway.admin("GET", f"/keys/{made.id}")
    listed = await tenant.gateway.admin("GET", f"/keys?user={tenant.user}")
    for answer in (shown, listed):
        assert made.secret.encode() not in answer.body
        assert made.secret.split("_")[2].encode() not in answer.body
    assert {key["id"] for key in listed.json["data"]} == {tenant.key.id, made.id}


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_where_a_key_may_stand(tenant: Tenant, header: str) -> None:
    value = f"Bearer {tenant.key.secret}" if header == "authorization" else tenant.key.secret
    request = Request("GET", "/v1/models", headers={header: value})
    assert (await tenant.gateway.ask(request)).status == 200


async def test_keys_by_command(tenant: Tenant) -> None:
    made = await command(
        tenant.gateway, "keys", "create", "--user", tenant.user, "--name", "cli", "--models", "ok-1,ok-3"
    )
    assert await statuses(tenant.gateway, made["key"]) == {200}
    assert await statuses(tenant.gateway, made["key"], "ok-5") == {403}
    listed = await command(tenant.gateway, "keys", "list")
    keys = listed["data"] if isinstance(listed, dict) else listed
    assert made["id"] in {key["id"] for key in keys}
    rotated = await command(tenant.gateway, "keys", "rotate", made["id"])
    assert await statuses(tenant.gateway, rotated["key"]) == {200}
    await command(tenant.gateway, "keys", "revoke", made["id"])
    assert await refused_everywhere(tenant.gateway, rotated["key"]) < OBEYED_WITHIN + 1


async def command(gateway: Gateway, *words: str) -> Any:
    done = await asyncio.to_thread(run, gateway, *words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


async def test_what_a_command_cannot_do_has_an_exit_code(tenant: Tenant) -> None:
    unknown = await asyncio.to_thread(run, tenant.gateway, "keys", "revoke", "nothing")
    assert unknown.returncode == 1
    wrong = await asyncio.to_thread(run, tenant.gateway, "keys", "create", "--nonsense")
    assert wrong.returncode == 2
    for done in (unknown, wrong):
        assert "Traceback" not in done.stderr


# --- restricted


async def test_allowed_models(tenant: Tenant) -> None:
    narrow = await tenant.gateway.create_key(tenant.user, models=["ok-1", "cheap"])
    listed = await tenant.gateway.get("/v1/models", narrow.secret)
    assert [model["id"] for model in listed.json["data"]] == ["ok-1", "priced"]
    assert await statuses(tenant.gateway, narrow.secret, "cheap") == {200}
    denied = await tenant.gateway.ask(post(CHAT, chat("ok-5"), narrow.secret))
    assert (denied.status, denied.json["error"]["code"]) == (403, "model_not_allowed")
    assert (await tenant.gateway.get("/v1/models/ok-5", narrow.secret)).status == 403
    count = post("/extras/tokenize/count", {"model": "ok-5", "input": "a"}, narrow.secret)
    assert (await tenant.gateway.ask(count)).status == 403


async def test_an_expired_key(tenant: Tenant) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    short = await tenant.gateway.create_key(tenant.user, expires_at=ends.isoformat())
    assert await statuses(tenant.gateway, short.secret) == {200}
    await asyncio.sleep(max(0, (ends - datetime.now(UTC)).total_seconds()))
    assert await statuses(tenant.gateway, short.secret) == {401}
    past = await tenant.gateway.admin(
        "POST", "/keys", {"user": "a", "name": "b", "expires_at": "2020-01-01T00:00:00Z"}
    )
    assert past.status == 400


# --- changed


async def test_s_key_05_revoked_means_refused_everywhere(tenant: Tenant) -> None:
    made = await tenant.gateway.create_key(tenant.user)
    await warm(tenant, made.secret)
    assert (await tenant.gateway.admin("DELETE", f"/keys/{made.id}")).status == 200
    assert await refused_everywhere(tenant.gateway, made.secret) < OBEYED_WITHIN
    assert await statuses(tenant.gateway, tenant.key.secret) == {200}
    again = await tenant.gateway.admin("PATCH", f"/keys/{made.id}", {"state": "active"})
    assert again.status == 409


async def test_a_suspended_key_comes_back(tenant: Tenant) -> None:
    made = await tenant.gateway.create_key(tenant.user)
    await warm(tenant, made.secret)
    assert (await tenant.gateway.admin("PATCH", f"/keys/{made.id}", {"state": "suspended"})).status == 200
    assert await refused_everywhere(tenant.gateway, made.secret) < OBEYED_WITHIN
    assert (await tenant.gateway.admin("PATCH", f"/keys/{made.id}", {"state": "active"})).status == 200

    async def is_taken() -> bool:
        return await statuses(tenant.gateway, made.secret) == {200}

    await eventually_answers(is_taken, "every worker takes the key again", OBEYED_WITHIN)


async def test_a_suspended_user_has_no_keys(tenant: Tenant) -> None:
    await warm(tenant, tenant.key.secret)
    answer = await tenant.gateway.admin("PATCH", f"/users/{tenant.user}", {"state": "suspended"})
    assert answer.status == 200, answer.body
    assert await refused_everywhere(tenant.gateway, tenant.key.secret) < OBEYED_WITHIN
    assert (await tenant.gateway.admin("POST", "/keys", {"user": tenant.user, "name": "x"})).status == 409


async def test_rotation_with_an_overlap(tenant: Tenant) -> None:
    made = await tenant.gateway.create_key(tenant.user)
    await warm(tenant, made.secret)
    rotated = await rotate(tenant.gateway, made, overlap_seconds=2)
    assert rotated.id == made.id
    assert await statuses(tenant.gateway, rotated.secret) == {200}
    assert await statuses(tenant.gateway, made.secret) == {200}
    await asyncio.sleep(2)
    assert await statuses(tenant.gateway, made.secret) == {401}
    assert await statuses(tenant.gateway, rotated.secret) == {200}
    at_once = await rotate(tenant.gateway, made, overlap_seconds=0)
    assert await refused_everywhere(tenant.gateway, rotated.secret) < OBEYED_WITHIN
    assert await statuses(tenant.gateway, at_once.secret) == {200}
    records = await tenant.gateway.ledger(1, user=tenant.user)
    assert {record["key_id"] for record in records} == {made.id}


async def rotate(gateway: Gateway, key: IssuedKey, **asked: int) -> IssuedKey:
    answer = await gateway.admin("POST", f"/keys/{key.id}/rotate", asked)
    assert answer.status == 200, answer.body
    return IssuedKey(answer.json["id"], answer.json["key"], answer.json)


async def test_allowed_models_can_be_changed(tenant: Tenant) -> None:
    made = await tenant.gateway.create_key(tenant.user)
    await warm(tenant, made.secret)
    assert (await tenant.gateway.admin("PATCH", f"/keys/{made.id}", {"models": ["ok-3"]})).status == 200

    async def is_narrow() -> bool:
        return await statuses(tenant.gateway, made.secret) == {403}

    await eventually_answers(is_narrow, "every worker knows what the key may use", OBEYED_WITHIN)
    assert await statuses(tenant.gateway, made.secret, "ok-3") == {200}


# --- refused


def wrong_keys(key: IssuedKey) -> dict[str, dict[str, str]]:
    secret = key.secret
    other = "A" if secret[-8] != "A" else "B"
    tokens = {
        "wrong checksum": secret[:-1] + ("0" if secret[-1] != "0" else "1"),
        "too short": secret[:-1],
        "too long": secret + "A",
        "another secret": secret[:-8] + other + secret[-7:],
        "a word": "hello",
        "sql": "' OR 1=1--",
        "mongo": '{"$ne":null}',
        "glob": "lgw_*",
        "digits": "lgw_\u0661",
        "long": "x" * 8000,
    }
    headers = {
        name: {"authorization": f"Bearer {token}".encode().decode("latin-1")}
        for name, token in tokens.items()
    }
    return headers | {
        "none": {},
        "empty": {"authorization": ""},
        "bearer": {"authorization": "Bearer"},
        "basic": {"authorization": f"Basic {secret}"},
        "bare": {"authorization": secret},
    }


async def test_s_key_01_02_one_answer_for_every_cause(tenant: Tenant) -> None:
    revoked = await tenant.gateway.create_key(tenant.user)
    await tenant.gateway.admin("DELETE", f"/keys/{revoked.id}")
    await refused_everywhere(tenant.gateway, revoked.secret)
    causes = wrong_keys(tenant.key) | {"revoked": {"authorization": f"Bearer {revoked.secret}"}}
    answers: dict[str, Answer] = {}
    for cause, headers in causes.items():
        request = Request("POST", CHAT, json=chat("ok-1"), headers=headers)
        answers[cause] = await tenant.gateway.ask(request)
    assert {cause: answer.status for cause, answer in answers.items()} == dict.fromkeys(causes, 401)
    assert len({answer.body for answer in answers.values()}) == 1
    fields = {tuple(name for name, _ in answer.head.fields) for answer in answers.values()}
    assert len(fields) == 1
    assert {answer.header("www-authenticate") for answer in answers.values()} == {"Bearer"}
    assert tenant.calls == []


async def refused(connection: Connection, secret: str) -> None:
    answer = await connection.ask(Request("GET", "/v1/models", secret))
    assert answer.status == 401


@pytest.mark.alone
async def test_s_key_02_no_refusal_is_told_by_its_time(tenant: Tenant, figure: Callable[[str], None]) -> None:
    """On one connection to one worker: whoever shows a key again and again guesses why it is refused no
    better than by tossing a coin. The first time it is looked up, and an id that is stored (which is no
    secret, and cannot be guessed either) costs what reading a document does more than one that is not."""
    revoked = await tenant.gateway.create_key(tenant.user)
    ends = datetime.now(UTC) + timedelta(seconds=0.2)
    expired = await tenant.gateway.create_key(tenant.user, expires_at=ends.isoformat())
    await tenant.gateway.admin("DELETE", f"/keys/{revoked.id}")
    await refused_everywhere(tenant.gateway, revoked.secret)
    await refused_everywhere(tenant.gateway, expired.secret)
    own = tenant.key.secret
    shown = {
        "unknown": mint()[1], "revoked": revoked.secret, "expired": expired.secret,
        "another secret": mint_for(tenant.key.id),
        "last character": own[:-1] + ("0" if own[-1] != "0" else "1"),
    }  # fmt: skip
    async with await Connection.open(tenant.gateway.url) as connection:
        for secret in shown.values():
            await refused(connection, secret)
        works = {kind: partial(refused, connection, secret) for kind, secret in shown.items()}
        found = guessed(await interleaved(works, 200))
        fresh = await interleaved(
            {
                "unknown": lambda: refused(connection, mint()[1]),
                "another secret": lambda: refused(connection, mint_for(tenant.key.id)),
            },
            100,
        )
    middles = {kind: median(seconds) for kind, seconds in fresh.items()}
    told = [f"{kind} {share:.2f}" for kind, share in found.items()]
    told += [f"fresh, {kind} {seconds * 1e6:.0f} us" for kind, seconds in middles.items()]
    figure(", ".join(told))
    assert max(found.values()) < TOLD_APART, told
    assert max(middles.values()) < 2 * min(middles.values()), told


async def test_s_key_07_a_poisoned_cache_is_not_believed(
    tenant: Tenant, request: pytest.FixtureRequest
) -> None:
    if tenant.kind == "embedded":
        pytest.skip("its cache is its own memory")
    strange = "llmgateway_strange_records_total"
    made, before = await tenant.gateway.create_key(tenant.user), await tenant.gateway.metric(strange)
    other = await tenant.gateway.create_key("another")
    with Redis.from_url(request.getfixturevalue("valkey").url(0)) as redis:

        async def is_cached() -> bool:
            assert await statuses(tenant.gateway, other.secret) == {200}
            return bool(redis.get(KEYS + other.id))

        await eventually_answers(is_cached, "the cache holds the other key", HOLD + 10)
        redis.set(KEYS + made.id, redis.get(KEYS + other.id))
    assert await statuses(tenant.gateway, made.secret) == {200}
    records = await tenant.gateway.ledger(CONNECTIONS, key=made.id)
    assert {record["user"] for record in records} == {tenant.user}
    assert "belongs to another question" in tenant.gateway.output()

    async def is_told() -> bool:
        return await tenant.gateway.metric(strange) > before

    await eventually_answers(is_told, "the metric tells of it")


async def test_s_key_01_a_key_in_the_query_and_two_keys_are_none(tenant: Tenant) -> None:
    query = Request("POST", f"{CHAT}?api_key={tenant.key.secret}&key={tenant.key.secret}", json=chat("ok-1"))
    assert (await tenant.gateway.ask(query)).status == 401
    lines = f"POST {CHAT} HTTP/1.1\r\nhost: lab\r\n" + f"authorization: Bearer {tenant.key.secret}\r\n" * 2
    async with await Connection.open(tenant.gateway.url) as connection:
        await connection.send(f"{lines}content-length: 0\r\n\r\n".encode())
        assert (await connection.head()).status == 401


@pytest.mark.parametrize("credential", ["", "wrong", "x" * 46])
async def test_operators_need_their_own_key(tenant: Tenant, credential: str) -> None:
    for method, path in (
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("GET", "/admin/nothing"),
        ("GET", "/admin/config"),
    ):
        request = Request(method, path, credential, json={} if method == "POST" else None)
        assert (await tenant.gateway.ask(request)).status == 401
        with_key = Request(method, path, tenant.key.secret, json={} if method == "POST" else None)
        assert (await tenant.gateway.ask(with_key)).status == 401


@pytest.mark.parametrize(
    "path",
    [
        "//admin/keys",
        "/admin/../admin/keys",
        "/%61dmin/keys",
        "/admin/keys;x",
        "/v1/../admin/keys",
        "/admin/./keys",
        "http://127.0.0.1/admin/keys",
        "/health/live/../../admin/keys",
    ],
)
async def test_s_key_12_no_path_leads_past_the_gate(tenant: Tenant, path: str) -> None:
    headers = {
        "x-forwarded-uri": "/health/live",
        "x-original-url": "/health/live",
        "user-agent": "kube-probe/1.30",
        "host": "x/health?",
    }
    answer = await tenant.gateway.ask(Request("GET", path, headers=headers))
    assert answer.status in (400, 401, 404, 405)
