"""Keys follow what an identity provider says of their owner, on every worker; `policy explain` says why."""

import asyncio
import base64
import json
import subprocess
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.e2e.command import run
from tests.e2e.deployment import CHAT
from tests.lab.client import chat, post
from tests.lab.gateway import Gateway, serving
from tests.lab.identity import TestIdp, new_pair
from tests.lab.upstream import ScriptedUpstream
from tests.lab.waiting import eventually_answers

pytestmark = pytest.mark.e2e

ALICE = "alice@example.org"
CONNECTIONS = 12  # enough for every worker to have some
OBEYED_WITHIN = 1.0  # seconds until every worker has heard of a change
CONFIG = """
drain_pause: 0
saml:
  certificates: [{certificate: "${file:sp.crt}", key: "${file:sp.key}"}]
  providers: [{id: university, metadata: idp.xml}]
  subject: [name-id]
policy:
  rules:
    - name: staff
      when: {affiliation: [employee, faculty]}
      grants: {roles: [user], models: [ok-1], limits: {tokens_per_day: 100000}}
    - name: rich
      when: {groups: "llm-*"}
      grants: {models: [ok-3], limits: {tokens_per_day: 500000}}
  keys: {sign_in_within: 90d}
"""
EMPLOYEE = {"affiliation": ["employee"]}
STUDENT = {"affiliation": ["student"]}


class House:
    """A fleet, and the identity provider whose word it takes."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.idp = TestIdp(new_pair("idp"))
        self.sp = SimpleNamespace(entity_id=f"{gateway.url}/saml/metadata", address=f"{gateway.url}/saml/acs")
        ours = new_pair("sp")
        (gateway.directory / "sp.crt").write_text(ours.certificate)
        (gateway.directory / "sp.key").write_text(ours.key.reveal())
        (gateway.directory / "idp.xml").write_bytes(self.idp.metadata())

    async def sign_in(self, attributes: dict[str, list[str]]) -> int:
        """As a browser does: the status of the page where it ends."""
        async with httpx.AsyncClient(base_url=self.gateway.url) as browser:
            asked = await browser.get("/saml/login")
            (message,) = parse_qs(urlsplit(asked.headers["location"]).query)["SAMLRequest"]
            request = zlib.decompress(base64.b64decode(message), -15).decode()
            fields = {"SAMLResponse": base64.b64encode(self.response(attributes, id_in(request))).decode()}
            cross_site = {"origin": self.idp.url, "sec-fetch-site": "cross-site"}
            proved = await browser.post("/saml/acs", data=fields, headers=cross_site)
            assert proved.status_code == 303, proved.text
            return (await browser.get(proved.headers["location"])).status_code

    def response(self, attributes: dict[str, list[str]], request: str | None = None) -> bytes:
        self.idp.now = datetime.now(UTC)
        return self.idp.response(self.sp, request, name_id=ALICE, attributes=attributes)

    async def statuses(self, secret: str, model: str = "ok-1") -> set[int]:
        """What a key gets on many new connections."""
        asked = (self.gateway.ask(post(CHAT, chat(model), secret)) for _ in range(CONNECTIONS))
        return {answer.status for answer in await asyncio.gather(*asked)}

    async def seconds_until(self, expected: set[int], secret: str, model: str = "ok-1") -> float:
        began = time.monotonic()

        async def is_so() -> bool:
            return await self.statuses(secret, model) == expected

        await eventually_answers(is_so, f"every worker answers {expected}", 5)
        return time.monotonic() - began

    async def explain(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, self.gateway, "policy", "explain", *words)


def id_in(request: str) -> str:
    return request.partition(' ID="')[2].partition('"')[0]


@pytest.fixture
async def house(upstream: ScriptedUpstream, redis_url: str, mongo_url: str) -> AsyncIterator[House]:
    environment = serving(upstream.url, "ok-1", "ok-3")
    fleet = Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=CONFIG)
    made = House(fleet)
    async with fleet:
        yield made


async def test_keys_follow_the_identity_on_every_worker_within_a_second(house: House) -> None:
    assert await house.sign_in(EMPLOYEE) == 303
    key = await house.gateway.create_key(ALICE)
    service = await house.gateway.create_key("a-service")
    for _ in range(3):  # every worker knows both
        assert await house.statuses(key.secret) == {200}
        assert await house.statuses(service.secret) == {200}
    assert await house.statuses(key.secret, "ok-3") == {403}

    assert await house.sign_in(EMPLOYEE | {"groups": ["llm-users"]}) == 303
    assert await house.seconds_until({200}, key.secret, "ok-3") < OBEYED_WITHIN

    assert await house.sign_in(STUDENT) == 403
    assert await house.seconds_until({401}, key.secret) < OBEYED_WITHIN
    unknown = await house.gateway.ask(post(CHAT, chat("ok-1"), "lgw_nobody"))
    refused = await house.gateway.ask(post(CHAT, chat("ok-1"), key.secret))
    assert refused.body == unknown.body, "who asks with it learns nothing of why"
    assert (await house.gateway.admin("GET", f"/keys/{key.id}")).json["state"] == "active"
    assert await house.statuses(service.secret) == {200}
    assert "its owner was refused" in (told := await house.explain("--key", key.id)).stdout
    assert told.returncode == 1

    assert await house.sign_in(EMPLOYEE) == 303
    assert await house.seconds_until({200}, key.secret) < OBEYED_WITHIN
    assert await house.statuses(key.secret, "ok-3") == {403}, "withdrawn together with the group"
    assert await actions(house.gateway) >= {"users.sign_in", "users.lapse"}


async def actions(gateway: Gateway) -> set[str]:
    answer = await gateway.admin("GET", "/audit?limit=100")
    return {line["action"] for line in answer.json["data"] if line["target"] == ALICE}


async def test_policy_explain_beside_a_running_fleet(house: House) -> None:
    written = house.gateway.directory / "response.xml"
    written.write_bytes(house.response(EMPLOYEE | {"groups": ["llm-users"]}))
    told = await house.explain("--assertion", str(written), "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert (found["rules"], found["is_verified"]) == (["staff", "rich"], False)
    assert given(found["grants"], "what", "rule") == [
        ("role", "staff"), ("model", "staff"), ("model", "rich"), ("limit", "rich"),
    ]  # fmt: skip
    assert "Nothing was verified" in (await house.explain("--assertion", str(written))).stdout

    written.write_bytes(house.response(STUDENT))
    assert (await house.explain("--assertion", str(written))).returncode == 1
    written.write_text('<!DOCTYPE a [<!ENTITY b "boom"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>')
    bomb = await house.explain("--assertion", str(written))
    assert bomb.returncode != 0
    assert "declares a document type" in bomb.stdout + bomb.stderr
    assert (await house.explain()).returncode == 2

    await house.sign_in(EMPLOYEE)
    key = await house.gateway.create_key(ALICE)
    story = json.loads((await house.explain("--key", key.id, "--json")).stdout)
    assert (story["calls_pass"], story["models"]) == (True, ["ok-1"])
    rights = given(story["sources"], "what", "source")
    assert rights == [(what, "the rule 'staff'") for what in ("role", "limit", "model")]
    assert story["limits"][0]["limits"] == {"tokens_per_day": 100_000}
    assert "the rule 'staff'" in (await house.explain("--key", key.id)).stdout


def given(rows: Sequence[dict[str, Any]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]
