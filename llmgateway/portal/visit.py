"""What a page's function gets and gives: a visit, and a page, a redirect or a file."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Protocol

from msgspec import Struct
from starlette.requests import Request

from llmgateway.control.accounts import Accounts
from llmgateway.control.audit import Actor
from llmgateway.control.erasure import Erasure
from llmgateway.control.playground import Playground
from llmgateway.control.replicas import Seen
from llmgateway.control.services import Control
from llmgateway.domain.catalog import Model
from llmgateway.domain.keys import Principal, models_of
from llmgateway.domain.limits import Scope, Standing
from llmgateway.domain.live import OpenCall
from llmgateway.domain.people import User
from llmgateway.domain.policy import KeyRules
from llmgateway.domain.ports import Clock, Shelf
from llmgateway.domain.refusals import Refusal
from llmgateway.portal.form import Form
from llmgateway.portal.sessions import How, Session, Sessions
from llmgateway.portal.words import Words, later

Theme = Literal["auto", "light", "dark"]
NOTHING: Mapping[str, Any] = MappingProxyType({})

# What a page says at its head after a redirect, by the word that stands in its address.
SAID: Mapping[str, str] = {
    "changed": later("Your changes are saved."),
    "revoked": later("The key is revoked. Programs that use it are refused from now on."),
    "already": later("That form was sent before; nothing was done twice."),
    "ended": later("The session is ended."),
    "others-ended": later("All other sessions are ended."),
    "password": later("Your password is changed, and all other sessions are ended."),
    "signed-out": later("You are signed out."),
    "over": later("Your session is over. Sign in again to go on."),
    "welcome": later("Welcome! Your account is ready."),
    "accepted": later("Thank you. You have accepted the terms of use."),
    "created": later("It is made."),
    "deleted": later("It is deleted."),
    "suspended": later("Suspended. Whoever tries is refused from now on."),
    "resumed": later("Active again."),
    "member": later("The member is added."),
    "no-member": later("The member is removed."),
    "project-ended": later("The project is ended. Its keys are refused from now on."),
    "announcement-ended": later("The announcement is not shown any more."),
    "limits": later("The limits are saved, and hold within a second."),
    "forgotten": later("The account is ended. What was kept of the person is gone."),
    "sessions": later("All sessions of this person are ended."),
}

CAUTIONS = frozenset({"over", "already"})  # of what is said, what is no success


class Facts(Struct, frozen=True, kw_only=True):
    """What pages say of the gateway. `sign_in_url` is the identity provider's door, None where there is
    none; `sign_in_name` is what its button says. `key_rules` hold for who comes through that door."""

    public_url: str
    currency: str
    time_zone: str
    version: str
    sign_in_url: str | None = None
    sign_in_name: str = ""
    key_rules: KeyRules = KeyRules()


class Choice(Struct, frozen=True):
    """An identity provider to choose."""

    id: str
    name: str


class Federation(Protocol):
    """Signing in and out with an organisation's identity; every answer is to one request of a browser."""

    def choices(self) -> Sequence[Choice]: ...

    def metadata(self) -> bytes: ...

    def origins(self) -> Sequence[str]:
        """The sites that a sign-out leads over."""

    async def ask(self, visit: "Visit", id: str) -> "Answer":
        """To the provider of this id, to sign in."""

    async def receive(self, visit: "Visit") -> "Answer":
        """What a provider says of somebody, brought by the browser from the provider's site."""

    async def arrive(self, visit: "Visit") -> "Answer":
        """The same browser, on a way of our own: the sign-in ends here."""

    async def leave(self, visit: "Visit") -> str | None:
        """Before a session ends: a word for `go`, None where there is nobody to tell."""

    async def go(self, visit: "Visit") -> "Answer":
        """To the provider, to sign out there, too."""

    async def hear(self, visit: "Visit") -> "Answer":
        """A provider's answer to that, or its own request to end sessions."""


class Desk(Struct, frozen=True, kw_only=True):
    """What pages work with. `visible`: the models that somebody may call; `standings`: how the limits of
    scopes stand now; `replicas`: the health of upstreams; `open_calls`: those of all processes;
    `refusals`: a user's newest, so many; `config`: all settings, masked."""

    control: Control
    erasure: Erasure
    accounts: Accounts
    sessions: Sessions
    playground: Playground
    shelf: Shelf
    clock: Clock
    visible: Callable[[Principal], Sequence[Model]]
    standings: Callable[[Sequence[Scope]], Awaitable[Sequence[Standing]]]
    replicas: Seen
    open_calls: Callable[[], Awaitable[Sequence[OpenCall]]]
    refusals: Callable[[str, int], Awaitable[Sequence[Refusal]]]
    config: Callable[[], Mapping[str, Any]]
    facts: Callable[[], Facts]
    federation: Federation | None = None

    def visible_to(self, user: User) -> Sequence[Model]:
        """By the same rule as calls: what a key of theirs without restrictions may use."""
        models = models_of(None, user.models)
        return self.visible(Principal(key_id="", user=user.id, project=user.project, models=models))


class Look(Struct, frozen=True):
    """How somebody wants pages to be."""

    language: str
    theme: Theme


class Visit(Struct, frozen=True, kw_only=True):
    """One request. `session` and `user` are None for who is not signed in."""

    request: Request
    words: Words
    look: Look
    address: str
    session: Session | None = None
    user: User | None = None
    form: Form = Form()

    @property
    def actor(self) -> Actor:
        who = f"user {self.user.id}" if self.user else "nobody"
        return Actor(who, f"portal {self.address}", getattr(self.request.state, "request_id", None))

    @property
    def me(self) -> User:
        assert self.user is not None, "the place needs somebody who is signed in"
        return self.user

    @property
    def current(self) -> Session:
        assert self.session is not None, "the place needs somebody who is signed in"
        return self.session

    def asked(self, name: str) -> str:
        """A parameter of the address."""
        return self.request.query_params.get(name, "").strip()


class Page(Struct, frozen=True):
    """A template with its values."""

    template: str
    values: Mapping[str, Any] = NOTHING
    status: int = 200


class Redirect(Struct, frozen=True):
    """To a place of ours, by its name, or to the visitor's own `wish` where that names a destination. `said`
    is a word of `SAID`. On the way a session may begin for a user, or end, and the look may change. The
    session stays `if_still` says so when it is stored."""

    place: str
    parameters: Mapping[str, str] = NOTHING
    said: str | None = None
    wish: str = ""
    begins_for: str | None = None
    if_still: Callable[[], Awaitable[bool]] | None = None
    how: How = "local"
    details: Mapping[str, str] = NOTHING
    ends: bool = False
    look: Look | None = None


class Elsewhere(Struct, frozen=True):
    """To another site, in the middle of a way that leads back; what the browser `remembers` proves that it
    is the same one then."""

    url: str
    remembers: str | None = None


class Download(Struct, frozen=True):
    """A file to keep."""

    body: bytes
    media_type: str
    name: str


class Data(Struct, frozen=True):
    """JSON for a script of ours."""

    value: object


class Event(Struct, frozen=True):
    """A piece of a page that changed; the script puts it where the old one was."""

    template: str
    values: Mapping[str, Any]


class Events(Struct, frozen=True):
    """What follows for as long as somebody looks."""

    events: AsyncIterator[Event]


Answer = Page | Redirect | Elsewhere | Download | Data | Events
Show = Callable[[Desk, Visit], Awaitable[Answer]]
