"""Signing in and out over SAML as a browser sees it, over two workers with one shelf."""

import base64
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from typing_extensions import override

from llmgateway.control.audit import Actor
from llmgateway.domain.errors import NotAllowed
from llmgateway.domain.identity import Identity
from llmgateway.domain.people import User
from llmgateway.domain.ports import Shelf
from llmgateway.domain.saml import IdentityProvider, Saml
from llmgateway.portal import federation
from llmgateway.portal.door import way_cookie
from llmgateway.portal.federation import MOST_NOTED, Means, SamlFederation
from llmgateway.portal.saml import ServiceProvider
from llmgateway.portal.saml_idps import Idps
from tests.control.desk import Desk
from tests.lab.identity import EPPN, TestIdp, new_pair
from tests.portal.house import HOME, Browser, Portal, browsing

OURS, THEIRS, THEIR_NEXT, STRANGER = (new_pair(name) for name in ("sp", "idp", "next", "stranger"))
FROM_IDP = {"origin": "https://idp.example.org", "sec-fetch-site": "cross-site"}


class Organisation:
    """An identity provider, and who is welcome."""

    def __init__(self) -> None:
        self.idp = TestIdp(THEIRS)
        self.idp.now = datetime.now(UTC)
        self.welcomed: list[Identity] = []
        self.is_open = True

    async def fetch(self, place: str) -> bytes:
        return self.idp.metadata()

    async def welcome(self, portal: Portal, actor: Actor, identity: Identity) -> User:
        if not self.is_open:
            raise NotAllowed("Your affiliation gives no access here.")
        self.welcomed.append(identity)
        return await portal.desk.control.people.ensure(actor, identity.subject)


class Worker(Portal):
    """A portal with a federation; `saml` is changed before it opens."""

    def __init__(
        self, desk: Desk, organisation: Organisation, shelf: Shelf | None = None, **said: Any
    ) -> None:
        self.organisation = organisation
        super().__init__(desk, shelf=shelf)
        uni = IdentityProvider(id="uni", name="University", metadata="idp.xml", scopes=("example.org",))
        self.saml = Saml(pairs=(OURS,), providers=(uni,), subject=(EPPN, "name-id"), **said)
        self.sp = ServiceProvider(self.saml, HOME)
        self.idps = Idps(self.sp, self.saml.providers, organisation.fetch, desk.clock)
        means = Means(
            shelf=self.shelf, sessions=self.sessions, audit=desk.control.audit, clock=desk.clock,
            welcome=lambda actor, identity: organisation.welcome(self, actor, identity),
            cookie=way_cookie(is_secure=False),
        )  # fmt: skip
        self.federation = SamlFederation(self.saml, self.sp, self.idps, means)
        self.app = self._app()

    @override
    def portal_desk(self) -> Any:
        federation = getattr(self, "federation", None)
        return msgspec.structs.replace(super().portal_desk(), federation=federation)


@pytest.fixture
def organisation(desk: Desk) -> Organisation:
    desk.clock.at = datetime.now(UTC)
    return Organisation()


@pytest.fixture
async def worker(desk: Desk, organisation: Organisation) -> Worker:
    made = Worker(desk, organisation)
    await made.idps.look()
    return made


@pytest.fixture
async def browser(worker: Worker) -> AsyncIterator[Browser]:
    async with browsing(worker) as one:
        yield one


async def leave(browser: Browser, **query: str) -> str:
    """To the provider: the id of the request."""
    answer = await browser.client.get("/saml/login", params=query)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith("https://idp.example.org/sso?")
    (message,) = parse_qs(urlsplit(answer.headers["location"]).query)["SAMLRequest"]
    text = zlib.decompress(base64.b64decode(message), -15).decode()
    return text.partition(' ID="')[2].partition('"')[0]


async def bring(browser: Browser, document: bytes) -> httpx.Response:
    """As the provider's page does: without any cookie of ours that is not for other sites."""
    fields = {"SAMLResponse": base64.b64encode(document).decode(), "RelayState": "https://evil.example.org"}
    return await browser.client.post("/saml/acs", data=fields, headers=FROM_IDP)


async def sign_in(browser: Browser, worker: Worker, **said: Any) -> httpx.Response:
    request = await leave(browser)
    answer = await bring(browser, worker.organisation.idp.response(worker.sp, request, **said))
    assert answer.status_code == 303, answer.text
    return await browser.get(answer.headers["location"])


async def test_somebody_signs_in(browser: Browser, worker: Worker) -> None:
    said = {EPPN: ["alice@example.org"], "mail": ["a@example.org"], "displayName": ["Alice"]}
    answer = await sign_in(browser, worker, attributes=said)
    assert (answer.status_code, answer.headers["location"]) == (303, "/portal")
    assert "alice@example.org" in (await browser.get("/portal/account")).text
    (identity,) = worker.organisation.welcomed
    assert identity.subject == "alice@example.org"
    assert (identity.name, identity.email) == ("Alice", "a@example.org")
    assert identity.provider == "https://idp.example.org/idp"
    (session,) = await worker.sessions.of_user("alice@example.org")
    assert session.how == "saml"


async def test_the_visitor_arrives_where_the_way_began(browser: Browser, worker: Worker) -> None:
    request = await leave(browser, next="keys")
    answer = await bring(browser, worker.organisation.idp.response(worker.sp, request))
    answer = await browser.get(answer.headers["location"])
    assert answer.headers["location"] == "/portal/keys"


async def test_pages_offer_it(browser: Browser, worker: Worker) -> None:
    worker.sign_in_url = "/saml/login"
    page = await browser.get("/portal/sign-in")
    assert 'href="/saml/login"' in page.text
    policy = page.headers["content-security-policy"]
    assert policy.endswith("form-action 'self' https://idp.example.org")
    metadata = await browser.get("/saml/metadata")
    assert metadata.headers["content-type"].startswith("application/samlmetadata+xml")
    assert (await browser.get("/saml/login?idp=other")).status_code == 404
    assert (await browser.get("/saml/nothing")).status_code == 404


async def test_s_saml_13_a_response_is_good_once_on_all_workers(
    browser: Browser, worker: Worker, desk: Desk, organisation: Organisation
) -> None:
    request = await leave(browser)
    document = organisation.idp.response(worker.sp, request)
    assert (await bring(browser, document)).status_code == 303
    other = Worker(desk, organisation)
    await other.idps.look()
    async with browsing(other) as second:
        for again in (browser, second):
            answer = await bring(again, document)
            assert (answer.status_code, "location" in answer.headers) == (401, False)


async def test_s_saml_13_the_same_assertion_in_another_answer(browser: Browser, worker: Worker) -> None:
    idp = worker.organisation.idp
    first, second = await leave(browser), await leave(browser)
    assert (await bring(browser, idp.response(worker.sp, first))).status_code == 303
    idp._number -= 1
    assert (await bring(browser, idp.response(worker.sp, second))).status_code == 401


async def test_whoever_begins_sign_ins_without_end_is_stopped(
    browser: Browser, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is remembered for a quarter of an hour, and signed."""
    monkeypatch.setattr(federation, "MOST_ASKED", 3)
    statuses = [(await browser.client.get("/saml/login")).status_code for _ in range(5)]
    assert statuses == [303, 303, 303, 429, 429]
    worker.desk.clock.pass_seconds(901)
    assert (await browser.client.get("/saml/login")).status_code == 303


async def test_s_saml_14_nobody_asked(browser: Browser, worker: Worker) -> None:
    idp = worker.organisation.idp
    for request in (None, "_unknown"):
        assert (await bring(browser, idp.response(worker.sp, request))).status_code == 401


async def test_s_saml_14_asked_too_long_ago(browser: Browser, worker: Worker, desk: Desk) -> None:
    request = await leave(browser)
    desk.clock.pass_seconds(901)
    worker.organisation.idp.now = desk.clock.now()
    assert (await bring(browser, worker.organisation.idp.response(worker.sp, request))).status_code == 401


async def test_s_saml_14_s_csrf_02_asked_by_another_browser(browser: Browser, worker: Worker) -> None:
    """Who lets somebody else bring a good response of theirs would have them work in a strange account."""
    request = await leave(browser)
    document = worker.organisation.idp.response(worker.sp, request)
    async with browsing(worker) as victim:
        answer = await bring(victim, document)
        answer = await victim.get(answer.headers["location"])
        assert answer.status_code == 403
        assert (await victim.get("/portal")).headers["location"].startswith("/portal/sign-in")
        await leave(victim)
        assert (await victim.get("/saml/arrive?word=guess")).status_code == 403
    assert worker.organisation.welcomed == []


async def test_two_tabs_of_one_browser_both_arrive(browser: Browser, worker: Worker) -> None:
    idp = worker.organisation.idp
    requests = [await leave(browser), await leave(browser)]
    for request in requests:
        answer = await bring(browser, idp.response(worker.sp, request))
        assert (await browser.get(answer.headers["location"])).headers["location"] == "/portal"


async def test_what_a_browser_remembers_is_only_ever_a_word_of_ours(browser: Browser, worker: Worker) -> None:
    """A short or strange one that somebody put there is not taken for a proof."""
    cookie = way_cookie(is_secure=False)
    for planted in ("", "known", "x" * 44, "a b" * 14):
        browser.client.cookies.clear()
        answer = await browser.client.get("/saml/login", headers={"cookie": f"{cookie}={planted}"})
        assert answer.cookies[cookie] != planted
        assert len(answer.cookies[cookie]) == 43


async def test_the_second_step_is_made_once(browser: Browser, worker: Worker) -> None:
    request = await leave(browser)
    answer = await bring(browser, worker.organisation.idp.response(worker.sp, request))
    assert (await browser.get(answer.headers["location"])).status_code == 303
    assert (await browser.get(answer.headers["location"])).status_code == 403


async def test_sign_ins_that_the_provider_begins_are_off_unless_asked_for(
    desk: Desk, organisation: Organisation
) -> None:
    worker = Worker(desk, organisation, allows_unsolicited=True)
    await worker.idps.look()
    async with browsing(worker) as browser:
        answer = await bring(browser, organisation.idp.response(worker.sp, None))
        assert (await browser.get(answer.headers["location"])).headers["location"] == "/portal"
        stranger = TestIdp(new_pair("stranger"), entity_id="urn:nobody")
        assert (await bring(browser, stranger.response(worker.sp, None))).status_code == 401


@pytest.mark.parametrize(
    "attributes",
    [
        {EPPN: ["alice@example.org", "bob@example.org"]}, {EPPN: [""]}, {EPPN: []},
        {EPPN: ["alice@evil.org"]}, {EPPN: ["alice@evil.org@example.org"]}, {EPPN: ["alice"]},
        {EPPN: ["al\nice@example.org"]}, {EPPN: ["a" * 200 + "@example.org"]},
        {EPPN: ["al\\ice@example.org"]},
    ],
    ids=[
        "two", "empty", "none", "another's scope", "two @", "no scope", "a line end", "too long",
        "a backslash",
    ],
)  # fmt: skip
async def test_s_saml_22_subjects_that_are_nobody(
    browser: Browser, worker: Worker, attributes: dict[str, list[str]]
) -> None:
    request = await leave(browser)
    document = worker.organisation.idp.response(worker.sp, request, attributes=attributes)
    answer = await bring(browser, document)
    assert answer.status_code == 401
    assert worker.organisation.welcomed == []


async def test_who_is_not_welcome_is_told_why(browser: Browser, worker: Worker) -> None:
    worker.organisation.is_open = False
    answer = await sign_in(browser, worker)
    assert answer.status_code == 403
    assert "Your affiliation gives no access here." in answer.text


async def test_a_refusal_says_nothing_to_who_brought_it(
    browser: Browser, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    request = await leave(browser)
    with caplog.at_level(logging.WARNING, "llmgateway.portal.federation"):
        document = worker.organisation.idp.response(worker.sp, request, pair=STRANGER)
        answer = await bring(browser, document)
    assert "could not be accepted" in answer.text
    assert "ignature" not in answer.text
    (line,) = [one for one in caplog.records if "refused" in one.message]
    assert "ignature" in line.__dict__["fields"]["reason"]
    (entry, *_) = (await worker.desk.control.audit.page({}, limit=1)).data
    assert (entry["action"], entry["result"]) == ("sessions.begin", "refused")


async def test_what_is_refused_from_one_address_does_not_fill_the_audit_log(
    browser: Browser, worker: Worker
) -> None:
    for _ in range(MOST_NOTED + 3):
        assert (await bring(browser, b"<x/>")).status_code == 401
    page = await worker.desk.control.audit.page({"action": "sessions.begin"}, limit=100)
    assert len(page.data) == MOST_NOTED


async def test_a_provider_may_begin_to_sign_with_a_new_key(
    browser: Browser, worker: Worker, desk: Desk
) -> None:
    """The metadata is read at once when a signature is unknown."""
    desk.clock.pass_seconds(60)
    worker.organisation.idp.pairs = [THEIR_NEXT]
    worker.organisation.idp.now = desk.clock.now()
    assert (await sign_in(browser, worker)).headers["location"] == "/portal"


async def test_certificates_roll_over_while_people_sign_in(desk: Desk, organisation: Organisation) -> None:
    """Announced first, used later, the old one taken away at last: nobody notices."""
    worker = Worker(desk, organisation)
    await worker.idps.look()
    steps: list[list[Any]] = [
        [THEIRS], [THEIRS, THEIR_NEXT], [THEIR_NEXT, THEIRS], [THEIR_NEXT], [THEIR_NEXT, STRANGER], [STRANGER]
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        for pairs in steps:
            organisation.idp.pairs = pairs
            desk.clock.pass_seconds(31)
            organisation.idp.now = desk.clock.now()
            for _ in range(5):
                browser = await stack.enter_async_context(browsing(worker))
                assert (await sign_in(browser, worker)).headers["location"] == "/portal"
    assert len(organisation.welcomed) == 30


# --- signing out -------------------------------------------------------------------------------------------


async def test_signing_out_goes_over_the_provider(browser: Browser, worker: Worker) -> None:
    await sign_in(browser, worker)
    await browser.get("/portal")
    answer = await browser.post("/portal/sign-out")
    assert answer.headers["location"].startswith("/saml/slo?word=")
    assert (await browser.get("/portal")).headers["location"].startswith("/portal/sign-in")
    away = await browser.get(answer.headers["location"])
    assert away.headers["location"].startswith("https://idp.example.org/slo?SAMLRequest=")
    assert (await browser.get(answer.headers["location"])).headers["location"].startswith("/portal/sign-in")
    by_get = await browser.get("/saml/sls?SAMLResponse=x")
    by_post = await browser.client.post("/saml/sls", data={"SAMLResponse": "x"}, headers=FROM_IDP)
    for back in (by_get, by_post):
        assert back.headers["location"].startswith("/portal/sign-in")


async def test_the_provider_ends_sessions(browser: Browser, worker: Worker) -> None:
    await sign_in(browser, worker)
    (session,) = await worker.sessions.of_user("alice@example.org")
    idp, sls = worker.organisation.idp, f"{HOME}/saml/sls"
    answer = await browser.get(f"/saml/sls?{idp.sign_out(sls, 'alice', '_other')}")
    assert answer.headers["location"].startswith("https://idp.example.org/slo?SAMLResponse=")
    assert (await browser.get("/portal")).status_code == 200
    answer = await browser.get(f"/saml/sls?{idp.sign_out(sls, 'alice', session.details['session'])}")
    assert answer.headers["location"].startswith("https://idp.example.org/slo?SAMLResponse=")
    assert (await browser.get("/portal")).headers["location"].startswith("/portal/sign-in")


async def test_a_request_to_sign_out_by_a_form_is_refused_not_taken_for_an_answer(
    browser: Browser, worker: Worker
) -> None:
    """Our metadata offers redirects only; a provider that posts shall see that nothing ended."""
    await sign_in(browser, worker)
    answer = await browser.client.post("/saml/sls", data={"SAMLRequest": "x"}, headers=FROM_IDP)
    assert answer.status_code == 403
    assert (await browser.get("/portal")).status_code == 200


async def test_s_saml_24_strangers_end_no_sessions(browser: Browser, worker: Worker) -> None:
    await sign_in(browser, worker)
    idp, sls = worker.organisation.idp, f"{HOME}/saml/sls"
    queries = [idp.sign_out(sls, "alice", signs=False), idp.sign_out(sls, "alice", pair=STRANGER),
               TestIdp(THEIRS, entity_id="urn:other").sign_out(sls, "alice"), "SAMLRequest=AAAA"]  # fmt: skip
    for query in queries:
        assert (await browser.get(f"/saml/sls?{query}")).status_code == 403
    assert (await browser.get("/portal")).status_code == 200


async def test_who_has_a_password_signs_out_as_ever(browser: Browser, worker: Worker) -> None:
    await browser.sign_up("carol")
    await browser.get("/portal")
    answer = await browser.post("/portal/sign-out")
    assert answer.headers["location"].startswith("/portal/sign-in")


async def test_without_saml_there_is_no_such_place(portal: Portal) -> None:
    async with browsing(portal) as browser:
        for path in ("/saml/login", "/saml/metadata", "/saml/slo", "/saml/sls", "/saml/arrive"):
            assert (await browser.get(path)).status_code == 404
        assert (await bring(browser, b"<x/>")).status_code == 404


@pytest.mark.parametrize("text", ["", "<xml>", "A" * 600_000, base64.b64encode(b"<x/>").decode()])
async def test_s_saml_20_what_is_no_response(browser: Browser, text: str) -> None:
    answer = await browser.client.post("/saml/acs", data={"SAMLResponse": text}, headers=FROM_IDP)
    assert answer.status_code == 401


async def test_s_saml_20_a_form_without_end(browser: Browser) -> None:
    answer = await browser.client.post("/saml/acs", data={"SAMLResponse": "A" * 2_000_000}, headers=FROM_IDP)
    assert answer.status_code == 413
