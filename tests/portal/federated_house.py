"""A portal that people enter through an identity provider, and their browser's way there and back."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
from lxml import etree
from typing_extensions import override

from llmgateway.domain.policy import Grants, Policy, Rule
from llmgateway.domain.ports import Shelf
from llmgateway.domain.saml import IdentityProvider, KeyPair, Saml
from llmgateway.portal.federation import Means, SamlFederation
from llmgateway.portal.saml import ServiceProvider
from llmgateway.portal.saml_guard import Refused, inflated
from llmgateway.portal.saml_idps import Idps
from llmgateway.portal.sessions import Sessions
from llmgateway.portal.visit import Desk as PortalDesk
from tests.control.desk import Desk
from tests.lab.identity import EPPN, TestIdp, new_pair
from tests.portal.asking import KEYS
from tests.portal.house import HOME, Browser, Portal

OURS, NEXT, THEIRS, THEIR_NEXT, STRANGER = (
    new_pair(name) for name in ("ours", "next", "theirs", "their-next", "stranger")
)
GROUPS = "groups"
POLICY = Policy(
    rules=(
        Rule(name="staff", every={GROUPS: ("employee",)}, grants=Grants(roles=("user",), models=("*",))),
        Rule(name="admins", every={GROUPS: ("llm-admins",)}, grants=Grants(roles=("user", "admin"))),
    )
)
UNI = IdentityProvider(id="uni", name="University", metadata="uni.xml")
LAB = IdentityProvider(id="lab", name="Laboratory", metadata="lab.xml")


class Places:
    """Where metadata lies."""

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}

    async def fetch(self, place: str) -> bytes:
        if place not in self.documents:
            raise Refused(f"cannot read {place}")
        return self.documents[place]


class FederatedPortal(Portal):
    """One worker. Those that are given one shelf are workers of one gateway."""

    def __init__(
        self, desk: Desk, places: Places, shelf: Shelf | None = None, *,
        providers: Sequence[IdentityProvider] = (UNI,), pairs: Sequence[KeyPair] = (OURS,), **saml: Any,
    ) -> None:  # fmt: skip
        self._federation: SamlFederation | None = None
        desk.configure(policy=POLICY)
        desk.clock.at = datetime.now(UTC).replace(microsecond=0)  # the library asks the system's clock
        super().__init__(desk)
        self.sign_in_url = "/saml/login"
        if shelf is not None:
            self.shelf = shelf  # type: ignore[assignment]  # any shelf does
        self.sessions = Sessions(self.shelf, desk.control.people, desk.clock, keys=KEYS, origins=self.origins)
        whole = Saml(pairs=tuple(pairs), providers=tuple(providers), **saml)
        self.sp = ServiceProvider(whole, HOME)
        self.idps = Idps(self.sp, providers, places.fetch, desk.clock)
        means = Means(
            shelf=self.shelf, sessions=self.sessions, welcome=desk.control.enrolment.welcome,
            audit=desk.control.audit, clock=desk.clock, cookie="lgw-way",
        )  # fmt: skip
        self._federation = SamlFederation(whole, self.sp, self.idps, means)
        self.open_up()

    @override
    def portal_desk(self) -> PortalDesk:
        return msgspec.structs.replace(super().portal_desk(), federation=self._federation)


class Person:
    """Somebody with a browser, known to an identity provider."""

    def __init__(self, browser: Browser, portal: FederatedPortal, idp: TestIdp) -> None:
        self.browser = browser
        self.portal = portal
        self.idp = idp
        idp.now = portal.desk.clock.now()

    async def leaves(self, path: str = "/saml/login") -> str:
        """The id of the request that goes to the provider."""
        answer = await self.browser.get(path)
        assert answer.status_code == 303, answer.text
        return request_in(answer.headers["location"])

    def says(self, request: str | None, *, who: str = "alice@example.org",
             groups: Sequence[str] = ("employee",), **said: Any) -> bytes:  # fmt: skip
        """What the provider answers."""
        attributes = {EPPN: [who], GROUPS: groups}
        return self.idp.response(self.portal.sp, request, **{"attributes": attributes, **said})

    async def brings(self, document: bytes, browser: Browser | None = None) -> httpx.Response:
        """As the provider's page makes the browser do it: from another site, so without a cookie."""
        client = (browser or self.browser).client
        kept = list(client.cookies.jar)
        client.cookies.clear()
        headers = {"sec-fetch-site": "cross-site", "origin": "https://idp.example.org"}
        fields = {"SAMLResponse": base64.b64encode(document).decode()}
        answer = await client.post("/saml/acs", data=fields, headers=headers)
        assert "set-cookie" not in answer.headers
        for cookie in kept:
            client.cookies.jar.set_cookie(cookie)
        (browser or self.browser).page = answer.text
        return answer

    async def arrives(self, answer: httpx.Response, browser: Browser | None = None) -> httpx.Response:
        assert answer.status_code == 303, answer.text
        return await (browser or self.browser).get(answer.headers["location"])

    async def signs_in(self, path: str = "/saml/login", **said: Any) -> httpx.Response:
        request = await self.leaves(path)
        return await self.arrives(await self.brings(self.says(request, **said)))

    async def is_in(self, browser: Browser | None = None) -> bool:
        return (await (browser or self.browser).get("/portal")).status_code == 200


def request_in(url: str) -> str:
    (text,) = parse_qs(urlsplit(url).query)["SAMLRequest"]
    return str(etree.fromstring(inflated(text)).get("ID"))


def why_in(records: Sequence[Any]) -> str:
    """What the log says of the last refusal."""
    return next((str(one.fields["reason"]) for one in reversed(records) if "refused" in one.message), "")
