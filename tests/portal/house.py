"""A whole portal over a real store: what a browser sees of it, without a browser."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from html import unescape

import httpx
from argon2 import PasswordHasher
from starlette.applications import Starlette

from llmgateway.control.accounts import AccountRules, Accounts
from llmgateway.control.ground import Ground
from llmgateway.control.people import UserChanges
from llmgateway.control.playground import Playground
from llmgateway.domain.catalog import Catalog
from llmgateway.domain.errors import StoreUnavailable
from llmgateway.domain.ids import Ids
from llmgateway.domain.limits import Scope, Standing
from llmgateway.domain.live import OpenCall
from llmgateway.domain.ports import Shelf
from llmgateway.domain.refusals import Refusal
from llmgateway.domain.secret import Secret
from llmgateway.edge.errors import status_of
from llmgateway.edge.middleware import HANDLERS, Envelope
from llmgateway.flow.route import Route
from llmgateway.portal.address import Addresses
from llmgateway.portal.assets import Assets
from llmgateway.portal.door import House, Place
from llmgateway.portal.origin import Origins
from llmgateway.portal.page import Link, Pages
from llmgateway.portal.routes import LINKS, PLACES, routes
from llmgateway.portal.sessions import Sessions
from llmgateway.portal.visit import Desk as PortalDesk, Facts
from llmgateway.portal.words import load_words
from llmgateway.stores.sqlite_shelf import SqliteShelf
from llmgateway.upstream.health import Replicas
from tests.control.desk import ANN, Desk
from tests.portal.asking import KEYS

HOME = "http://127.0.0.1:8080"
ADMIN_KEY = Secret("operators-credential-0123456789abcdef")
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse"
ALL_PATHS: Mapping[str, str] = {place.name: place.path for place in PLACES}


class Portal:
    """The parts that tests turn."""

    def __init__(self, desk: Desk, public_url: str = HOME, shelf: Shelf | None = None) -> None:
        self.desk = desk
        self.rules = AccountRules(is_private=True)
        self.limits: list[Standing] | None = []
        self.asked_scopes: Sequence[Scope] = ()
        self.calls: list[OpenCall] = []
        self.looks = 0
        self.refusals: dict[str, list[Refusal]] = {}
        self.on_look: Callable[[int], Awaitable[object]] = _nothing
        self.sign_in_url: str | None = None
        self.origins = Origins(public_url)
        self.shelf = shelf or SqliteShelf(desk.store.file, desk.clock)
        self.replicas = Replicas(desk.clock.monotonic)
        self.sessions = Sessions(self.shelf, desk.control.people, desk.clock, keys=KEYS, origins=self.origins)
        self.public_url = public_url
        self.links = list(LINKS)
        self.app = self._app()

    def open_up(self, *more: Place) -> None:
        """With places of a test's own."""
        self.app = self._app(*more)

    def link(self, *more: Link) -> None:
        """With lines of the navigation of a test's own."""
        self.links = [*LINKS, *more]
        self.app = self._app()

    def _app(self, *more: Place) -> Envelope:
        words, assets, places = load_words(), Assets(), {place.name: place for place in (*PLACES, *more)}
        pages = Pages(
            words, assets.url_of, self.desk.clock, origins=self.origins, links=self.links, paths=ALL_PATHS
        )
        house = House(
            desk=self.portal_desk(), pages=pages, origins=self.origins, addresses=Addresses(()), words=words,
            places=places, status_of=status_of,
        )  # fmt: skip
        inner = Starlette(routes=routes(house, assets), exception_handlers=HANDLERS)
        inner.router.redirect_slashes = False
        return Envelope(inner, lambda: Ids()(self.desk.clock.now()))

    def portal_desk(self) -> PortalDesk:
        desk = self.desk
        ground = Ground(store=desk.store, state=desk.state, clock=desk.clock, audit=desk.control.audit,
                        configured=lambda: desk.configuration)  # fmt: skip
        route = Route(Catalog(desk.configuration.base_models), lambda targets: targets)
        return PortalDesk(
            control=desk.control, erasure=desk.erasure, sessions=self.sessions, shelf=self.shelf,
            clock=desk.clock,
            accounts=Accounts(ground, desk.control.people, self.shelf, admin_key=ADMIN_KEY,
                              rules=lambda: self.rules, hasher=QUICK),
            playground=Playground(desk.control.keys, desk.clock),
            visible=route.visible, standings=self._standings, replicas=self.replicas.seen,
            open_calls=self._open_calls, refusals=self._refusals,
            config=lambda: {"settings": {"ADMIN_KEY": "***"}},
            facts=lambda: Facts(public_url=self.public_url, currency="EUR", time_zone="Europe/Helsinki",
                                version="0", sign_in_url=self.sign_in_url,
                                key_rules=desk.configuration.policy.keys),
        )  # fmt: skip

    async def _standings(self, scopes: Sequence[Scope]) -> list[Standing]:
        self.asked_scopes = scopes
        if self.limits is None:
            raise StoreUnavailable("Redis is not available.")
        return self.limits

    async def _refusals(self, user: str, most: int) -> list[Refusal]:
        if self.limits is None:
            raise StoreUnavailable("Redis is not available.")
        return self.refusals.get(user, [])[:most]

    async def _open_calls(self) -> list[OpenCall]:
        self.looks += 1
        await self.on_look(self.looks)
        return self.calls


async def _nothing(looks: int) -> None: ...


class Browser:
    """Keeps cookies, sends what a browser sends of itself, and fills in forms as they stand in pages."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.page = ""

    async def get(self, path: str, **headers: str) -> httpx.Response:
        answer = await self.client.get(path, headers=_named(headers))
        self.page = answer.text
        return answer

    async def post(
        self, path: str, fields: Mapping[str, object] | None = None, **headers: str
    ) -> httpx.Response:
        """As the form of the last page would: with its hidden fields."""
        sent = {**self.hidden(path), **(fields or {})}
        same = {"sec-fetch-site": "same-origin", "origin": str(self.client.base_url).rstrip("/")}
        answer = await self.client.post(path, data=sent, headers={**same, **_named(headers)})
        self.page = answer.text
        return answer

    def hidden(self, path: str) -> dict[str, str]:
        """The hidden fields of the last page's form for a path."""
        pattern = re.compile(rf'<form[^>]*action="{re.escape(path)}".*?</form>', re.DOTALL)
        form = pattern.search(self.page)
        inputs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form[0] if form else "")
        return {name: unescape(value) for name, value in inputs}

    async def sign_up(self, login: str = "alice", **fields: str) -> None:
        answer = await self.post("/portal/sign-up", {"login": login, "password": PASSWORD, **fields})
        assert answer.status_code == 303, answer.text

    async def sign_in(self, login: str = "alice", password: str = PASSWORD, **fields: str) -> httpx.Response:
        return await self.post("/portal/sign-in", {"login": login, "password": password, **fields})


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@asynccontextmanager
async def browsing(portal: Portal, **headers: str) -> AsyncIterator[Browser]:
    transport = httpx.ASGITransport(portal.app)
    async with httpx.AsyncClient(
        transport=transport, base_url=portal.public_url, headers=_named(headers)
    ) as client:
        yield Browser(client)


async def plain_user(portal: Portal, browser: Browser, login: str = "alice") -> None:
    """Signed up, and no administrator."""
    await browser.sign_up(login)
    await portal.desk.control.people.change(ANN, login, UserChanges(roles=["user"]))


def charted(page: str) -> dict[str, dict[str, int]]:
    """What a page's script draws: of each series its days, and their numbers."""
    (written,) = re.findall(r"data-chart='([^']*)'", page)
    told = json.loads(unescape(written))
    return {
        name: dict(zip(told["days"], values, strict=True))
        for name, values in zip(told["names"], told["values"], strict=True)
    }
