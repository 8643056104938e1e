"""A whole journey, from sign-up to sign-out by both doors; then everything that was kept is read, and nothing
in it opens anything."""

import asyncio
import base64
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.e2e.command import run
from tests.e2e.deployment import CHAT
from tests.lab.client import Request, chat
from tests.lab.dumps import dump_of_mongo, dump_of_redis, files_of, found_in
from tests.lab.gateway import ADMIN_KEY, PEPPER, SIGNING_KEY, Gateway
from tests.lab.identity import EPPN, TestIdp, body, new_pair
from tests.lab.waiting import eventually_answers

pytestmark = [pytest.mark.e2e, pytest.mark.service]

SAME = {"sec-fetch-site": "same-origin"}
LATER = "canary: battery staple"
OURS, THEIRS = new_pair("sp"), new_pair("idp")
CONFIG = """
drain_pause: 0
sign_in: {local: true, sign_up: true}
models: [{id: echo-1, targets: [{provider: echo}]}]
saml:
  certificates: [{certificate: "${file:sp.crt}", key: "${file:sp.key}"}]
  providers: [{id: uni, name: University, metadata: idp.xml}]
policy:
  rules: [{name: all, when: everybody, grants: {roles: [user], models: ["*"]}}]
"""
FILES = ("gateway.yaml", "sp.crt", "sp.key", "idp.xml")  # the operators' own
KEPT = ("admin_key", "secret_keys", "key_pepper")  # made at the first start of a laptop's gateway, mode 0600


@pytest.fixture(params=["embedded", "fleet"])
async def gateway(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    environment = {"LLMGATEWAY_LOG_LEVEL": "debug"}
    if request.param == "embedded":
        made = Gateway.embedded(environment, config=CONFIG)
    else:
        redis_url, mongo_url = (request.getfixturevalue(name) for name in ("redis_url", "mongo_url"))
        made = Gateway.fleet(environment, redis_url=redis_url, mongo_url=mongo_url, config=CONFIG)
    for name, text in (("sp.crt", OURS.certificate), ("sp.key", OURS.key.reveal())):
        (made.directory / name).write_text(text)
    (made.directory / "idp.xml").write_bytes(TestIdp(THEIRS).metadata())
    async with made:
        yield made


class Journey:
    """What was shown, typed or sent on the way, and must not be found afterwards."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.secrets: set[str] = set()
        self.idp = TestIdp(THEIRS)
        self.idp.now = datetime.now(UTC)

    def hide(self, *secrets: str) -> None:
        assert all(len(secret) >= 16 for secret in secrets), secrets
        self.secrets.update(secrets)

    def hide_key(self, key: str) -> str:
        self.hide(key, key.split("_")[2])
        return key

    @asynccontextmanager
    async def browser(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(base_url=self.gateway.url, headers=SAME) as client:
            yield client
            self.hide_cookies(client)

    def hide_cookies(self, client: httpx.AsyncClient) -> None:
        for name, value in client.cookies.items():
            if not name.endswith("look"):
                self.hide(value, *(value.rpartition(".")[:1] if "." in value else ()))

    async def post(self, client: httpx.AsyncClient, path: str, page: str, **fields: str) -> httpx.Response:
        """A form of a page, with the token that stands there."""
        text = (await client.get(page)).text
        token = re.search(r'name="token" value="([^"]*)"', text)
        once = re.search(r'name="once" value="([^"]*)"', text)
        hidden = {name: found[1] for name, found in (("token", token), ("once", once)) if found}
        return await client.post(path, data={**hidden, **fields})

    async def call(self, key: str) -> None:
        asked = Request("POST", CHAT, key, json=chat("echo-1"))
        assert (await self.gateway.ask(asked)).status == 200
        wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
        refused = (
            Request("POST", CHAT, wrong, json=chat("echo-1")),
            Request("GET", f"/v1/{key}"),
            Request("GET", f"/v1/models?api_key={key}"),
            Request("POST", CHAT, key, body=b"{"),
        )
        for request in refused:
            assert (await self.gateway.ask(request)).status in (400, 401, 404)

    async def as_a_local_person(self) -> None:
        password = "canary: correct horse"
        self.hide(password, LATER)
        async with self.browser() as client:
            fields = {"login": "carol", "password": password, "name": "Carol"}
            assert (await client.post("/portal/sign-up", data=fields)).status_code == 303
            self.hide_cookies(client)
            shown = await self.post(client, "/portal/keys", "/portal/keys/new", name="laptop", life="90")
            assert shown.status_code == 201, shown.text
            key = self.hide_key(key_in(shown.text))
            await self.call(key)
            (id,) = re.findall(r"lgw_([A-Za-z0-9]{12})_", key)
            shown = await self.post(client, f"/portal/keys/{id}/rotate", f"/portal/keys/{id}", overlap="1")
            await self.call(self.hide_key(key_in(shown.text)))
            made = await self.post(client, "/portal/playground/key", "/portal/account")
            await self.call(self.hide_key(made.json()["key"]))
            answer = await self.post(client, "/portal/account/password", "/portal/account",
                                     old=password, new=LATER)  # fmt: skip
            assert answer.status_code == 303, answer.text
        async with self.browser() as other:
            for word in ("canary: a wrong word", LATER):
                self.hide(word)
                await other.post("/portal/sign-in", data={"login": "carol", "password": word})
            await other.post("/portal/sign-in", data={"login": LATER, "password": "carol"})
            self.hide_cookies(other)
            assert (await self.post(other, "/portal/sign-out", "/portal")).status_code == 303

    async def as_somebody_of_the_university(self) -> None:
        async with self.browser() as client:

            async def is_offered() -> bool:
                return (await client.get("/saml/login")).status_code == 303

            await eventually_answers(is_offered, "the metadata is read")
            left = await client.get("/saml/login")
            (message,) = parse_qs(urlsplit(left.headers["location"]).query)["SAMLRequest"]
            asked = zlib.decompress(base64.b64decode(message), -15).decode()
            request = asked.partition(' ID="')[2].partition('"')[0]
            url = self.gateway.url
            sp = SimpleNamespace(address=f"{url}/saml/acs", entity_id=f"{url}/saml/metadata")
            document = self.idp.response(sp, request, attributes={EPPN: ["erin@example.org"]})
            for text in re.findall(rb"SignatureValue>([^<]{40,})<", document):
                self.hide(text.decode().strip().splitlines()[0])
            encoded = base64.b64encode(document).decode()
            self.hide(encoded, encoded[40:120], "<a:AuthnStatement", "SubjectConfirmation")
            self.hide_cookies(client)
            for expected in (303, 401):  # the second time it is a replay
                came = await client.post("/saml/acs", data={"SAMLResponse": encoded})
                assert came.status_code == expected
                if expected == 303:
                    word = parse_qs(urlsplit(came.headers["location"]).query)["word"][0]
                    self.hide(word)
                    arrived = await client.get(came.headers["location"])
                    assert arrived.headers["location"] == "/portal", arrived.text
            shown = await self.post(client, "/portal/keys", "/portal/keys/new", name="desk", life="90")
            await self.call(self.hide_key(key_in(shown.text)))

    async def as_an_operator(self) -> None:
        made = await self.gateway.create_key("dave", "by hand")
        await self.call(self.hide_key(made.secret))
        rotated = await self.gateway.admin("POST", f"/keys/{made.id}/rotate", {"overlap_seconds": 60})
        self.hide_key(rotated.json["key"])
        commands = (("users", "password", "dave"), ("keys", "create", "--user", "dave", "--name", "c"))
        for ran in await asyncio.gather(
            *(asyncio.to_thread(run, self.gateway, *words, "--json") for words in commands)
        ):
            assert ran.returncode == 0, ran.stderr
            told = json.loads(ran.stdout)
            self.hide(told.get("password") or self.hide_key(told["key"]))
        await self.gateway.admin("GET", "/config")


def key_in(page: str) -> str:
    found = re.search(r"lgw_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}_[A-Za-z0-9]{6}", page)
    assert found is not None, page
    return found[0]


def everything(gateway: Gateway, request: pytest.FixtureRequest) -> dict[str, bytes]:
    kept = files_of(gateway.directory, *FILES, *KEPT)
    if "REDIS_URL" in gateway.program.environment:
        kept["redis"] = dump_of_redis(request.getfixturevalue("redis_url"))
        kept["mongo"] = dump_of_mongo(request.getfixturevalue("mongo_url"))
    return kept


async def test_s_key_04_what_is_kept_of_a_whole_journey_opens_nothing(
    gateway: Gateway, request: pytest.FixtureRequest, figure: Callable[[str], None]
) -> None:
    journey = Journey(gateway)
    await asyncio.gather(
        journey.as_a_local_person(), journey.as_somebody_of_the_university(), journey.as_an_operator()
    )
    await gateway.ledger(5)
    journey.hide(ADMIN_KEY, PEPPER, SIGNING_KEY, OURS.key.reveal().splitlines()[1], body(THEIRS)[200:260])
    for name in KEPT:
        path = gateway.data / name
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0
            journey.hide(path.read_text().strip())
    running = everything(gateway, request) | {"metrics": (await gateway.get("/metrics")).body}
    told = b"\n".join(running.values())
    for sign in (b"carol", b"erin@example.org", b"accounts.sign_in", b"$argon2id$", b"llmgateway_build_info"):
        assert sign in told, f"{sign!r} is missing, so this is not everything"
    assert found_in(running, sorted(journey.secrets)) == []
    await gateway.stop()
    stopped = everything(gateway, request)
    assert found_in(stopped, sorted(journey.secrets)) == []
    figure(f"{len(journey.secrets)} secrets in none of {len(running)} places, {len(told):,} bytes")
