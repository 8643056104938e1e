"""Signing in and out at real identity providers, in a real browser, with and without scripts.

The gateway is 127.0.0.1 and the providers are localhost, so they are two sites, as in production.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from openai import AsyncOpenAI, AuthenticationError
from playwright.async_api import Browser, expect

from tests.lab.browser import Window, chromium, window
from tests.lab.client import Request
from tests.lab.gateway import Gateway
from tests.lab.identity import new_pair
from tests.lab.idp import GROUPS, SUBJECT, Idp, SamlIdp, SimpleSaml
from tests.lab.waiting import eventually_answers

pytestmark = [pytest.mark.e2e, pytest.mark.service]

MODEL = "qwen3-32b"
CONFIG = f"""
drain: 1
drain_pause: 0
portal: {{terms: {{version: "1", text: Be kind.}}}}
sign_in: {{local: false}}
models:
  - {{id: {MODEL}, targets: [{{provider: echo}}]}}
saml:
  certificates:
    - {{certificate: "${{file:sp.crt}}", key: "${{file:sp.key}}"}}
  providers:
    - {{id: university, name: Example University, metadata: idp.xml}}
  subject: [{SUBJECT}]
policy:
  rules:
    - {{name: staff, when: {{{GROUPS}: [staff]}}, grants: {{roles: [user], models: ["*"]}}}}
"""
ALICE, BOB = "alice@example.org", "bob@example.org"
BUTTON = "text=Example University"
NUMBERS = itertools.count(9_000)  # of databases on the Redis that all tests share
PATIENCE_MS = 10_000
NO_ROLE = "Your organisation's account gives you no access here"


ALL = [(kind, provider) for kind in ("embedded", "fleet") for provider in (SimpleSaml, SamlIdp)]


def named(chosen: tuple[str, type[Idp]]) -> str:
    return f"{chosen[0]}-{chosen[1].__name__}"


each_once = pytest.mark.parametrize("campus", [ALL[0], ALL[3]], indirect=True, ids=named)
"""Each deployment and each provider, where not every pair of them says something new."""


@dataclass(frozen=True)
class Campus:
    """A gateway and the provider that its people come from."""

    gateway: Gateway
    idp: Idp


@contextmanager
def provided(gateway: Gateway, kind: type[Idp]) -> Iterator[Idp]:
    """The provider runs before the gateway does, which finds its metadata beside its configuration."""
    ours = new_pair("sp")
    with kind(gateway.url, ours) as idp:
        for name, text in (("sp.crt", ours.certificate), ("sp.key", ours.key.reveal())):
            (gateway.directory / name).write_text(text)
        (gateway.directory / "idp.xml").write_bytes(idp.metadata())
        yield idp


@pytest.fixture(scope="module", params=ALL, ids=named)
async def campus(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Campus]:
    kind, provider = request.param
    if kind == "embedded":
        gateway = Gateway.embedded(config=CONFIG)
    else:  # stores of its own: a name belongs to the provider that it came from first
        valkey, mongod = request.getfixturevalue("valkey"), request.getfixturevalue("mongod")
        number = next(NUMBERS)
        gateway = Gateway.fleet(
            redis_url=valkey.url(number), mongo_url=mongod.url(f"saml{number}"), config=CONFIG
        )
    with provided(gateway, provider) as idp:
        async with gateway:
            yield Campus(gateway, idp)


@pytest.fixture(scope="module")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def visiting(browser: Browser, campus: Campus, **options: Any) -> AsyncIterator[Window]:
    async with window(browser, campus.gateway.url, **options) as shown:
        shown.page.set_default_timeout(PATIENCE_MS)
        yield shown


async def sign_in(
    shown: Window, campus: Campus, who: str = ALICE, groups: str = "staff", *, has_scripts: bool = True
) -> None:
    """From the gateway's page over the provider's and back. Without scripts the provider's last page has a
    button."""
    await shown.go("/portal/sign-in")
    await shown.page.click(BUTTON)
    await campus.idp.fill_in(shown.page, who, groups)
    if not has_scripts:
        await shown.page.click("[type=submit]:visible")
    await shown.page.wait_for_url(f"{campus.gateway.url}/**")
    if "/portal/terms" in shown.page.url:
        await shown.page.click("text=I accept these terms")


async def is_told_of_use(shown: Window) -> bool:
    await shown.go("/portal/usage")
    return await shown.page.locator("main table", has_text=MODEL).count() > 0


async def is_refused(client: AsyncOpenAI) -> bool:
    try:
        await client.models.list()
    except AuthenticationError:
        return True
    return False


@pytest.mark.parametrize(("who", "has_scripts"), [(ALICE, True), (BOB, False)], ids=["scripts", "no-scripts"])
async def test_somebody_signs_in_accepts_makes_a_key_calls_revokes_it_and_signs_out(
    browser: Browser, campus: Campus, who: str, has_scripts: bool
) -> None:
    gateway = campus.gateway
    async with visiting(browser, campus, java_script_enabled=has_scripts) as shown:
        page = shown.page
        await sign_in(shown, campus, who, has_scripts=has_scripts)
        await expect(page.locator("h1")).to_have_text("Hello, Alice Example")
        await shown.go("/portal/terms")
        await expect(page.locator("main")).to_contain_text("What you have accepted")
        await shown.go("/portal/keys/new")
        await page.fill("#f-name", "laptop")
        await page.click("main form .button")
        secret = await page.inner_text("#secret")
        async with AsyncOpenAI(base_url=gateway.base_url, api_key=secret, max_retries=0) as client:
            answer = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}]
            )
            assert answer.choices[0].message.content
            await eventually_answers(lambda: is_told_of_use(shown), "the usage appears")
            await shown.go("/portal/keys")
            await page.click("text=laptop")
            await page.click("text=Revoke the key")
            await page.click("text=Yes, revoke it")
            await expect(page.get_by_role("status")).to_contain_text("The key is revoked.")
            await eventually_answers(lambda: is_refused(client), "no worker takes the key any more", 1)
        cookies = await page.context.cookies(gateway.url)
        await page.click("text=Sign out")
        if not has_scripts and isinstance(campus.idp, SamlIdp):  # its answer is a form with a button
            await page.click("[type=submit]:visible")
        await expect(page.get_by_role("status")).to_contain_text("You are signed out.")
        assert page.url.startswith(f"{gateway.url}/portal/sign-in")
        await page.context.add_cookies(cookies)  # type: ignore[arg-type]  # what was read may be set
        await shown.go("/portal")
        assert page.url.startswith(f"{gateway.url}/portal/sign-in")
        if has_scripts:
            assert shown.complaints == []
    assert campus.idp.pair.key.reveal() not in gateway.output()


@each_once
async def test_a_sign_out_is_one_at_the_provider_too(browser: Browser, campus: Campus) -> None:
    """Who comes back must say again who they are."""
    async with visiting(browser, campus) as shown:
        await sign_in(shown, campus)
        await shown.go("/portal/sign-in")
        await shown.page.click("text=Sign out")
        await shown.page.wait_for_url(f"{campus.gateway.url}/portal/sign-in*")
        await shown.page.click(BUTTON)
        await expect(shown.page.locator(campus.idp.question)).to_be_visible()


@each_once
async def test_s_saml_13_14_a_response_is_stolen_and_brought_again(browser: Browser, campus: Campus) -> None:
    """Taken from the provider's form on its way: good for nobody after its owner, and not for others."""
    taken: list[str] = []
    async with visiting(browser, campus) as shown:
        shown.page.on("request", lambda sent: taken.append(sent.post_data or "")
                      if sent.url.endswith("/saml/acs") else None)  # fmt: skip
        await sign_in(shown, campus)
    assert len(taken) == 1
    again = Request(
        "POST", "/saml/acs", headers={"content-type": "application/x-www-form-urlencoded"},
        body=taken[0].encode(),
    )  # fmt: skip
    for _ in range(3):
        answer = await campus.gateway.ask(again)
        assert answer.status == 401
        assert b"could not be accepted" in answer.body


@each_once
async def test_who_has_no_role_is_told_so(browser: Browser, campus: Campus) -> None:
    async with visiting(browser, campus) as shown:
        await sign_in(shown, campus, "mallory@example.org", "visitors")
        await expect(shown.page.locator("h1")).to_have_text("That is not possible")
        await expect(shown.page.locator("main")).to_contain_text(NO_ROLE)
        assert await shown.violations() == []
        await shown.go("/portal")
        assert shown.page.url.startswith(f"{campus.gateway.url}/portal/sign-in")


@each_once
async def test_only_the_organisations_button_is_there(browser: Browser, campus: Campus) -> None:
    """Local accounts are off."""
    async with visiting(browser, campus) as shown:
        await shown.go("/portal/sign-in?next=keys")
        assert await shown.page.locator("[type=password]").count() == 0
        assert await shown.violations() == []
        await shown.page.click(BUTTON)
        await campus.idp.fill_in(shown.page, ALICE, "staff")
        await shown.page.wait_for_url(f"{campus.gateway.url}/portal/**")
        if "/portal/terms" in shown.page.url:
            await shown.page.click("text=I accept these terms")
        await shown.page.wait_for_url(f"{campus.gateway.url}/portal/keys")
