"""The portal put together: its parts, and what they are told of the settings in force."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct
from starlette.routing import BaseRoute

from llmgateway import __version__
from llmgateway.app.federated import Prepared, federation_over
from llmgateway.app.in_force import InForce
from llmgateway.app.services import Services
from llmgateway.control.accounts import AccountRules, Accounts
from llmgateway.control.audit import Actor
from llmgateway.control.ground import Ground
from llmgateway.control.playground import Playground
from llmgateway.domain.book import NO_LIMITS
from llmgateway.domain.identity import Identity
from llmgateway.domain.limits import Limits, Scope, ScopeKind, Standing
from llmgateway.domain.people import User
from llmgateway.domain.ports import Clock
from llmgateway.domain.saml import Saml
from llmgateway.edge.errors import status_of
from llmgateway.flow.admit import Admit
from llmgateway.portal.address import Addresses
from llmgateway.portal.assets import Assets
from llmgateway.portal.door import House
from llmgateway.portal.origin import Origins
from llmgateway.portal.page import Pages
from llmgateway.portal.routes import LINKS, PLACES, routes
from llmgateway.portal.sessions import Sessions
from llmgateway.portal.visit import Desk, Facts
from llmgateway.portal.words import load_words

SIGN_IN = "/saml/login"


class Portal(Struct, frozen=True):
    """Its routes, and the sessions that other surfaces may ask."""

    routes: list[BaseRoute]
    sessions: Sessions


def portal_of(
    in_force: InForce, services: Services, clock: Clock, prepared: Prepared | None = None
) -> Portal:
    settings = in_force.settings
    origins = Origins(settings.public_url)
    sessions = Sessions(
        services.shelf, services.control.people, clock, keys=settings.secret_keys, origins=origins
    )
    federation = None if prepared is None else federation_over(
        prepared, settings, services, clock, sessions=sessions, welcome=welcome_over(services)
    )  # fmt: skip
    words, assets = load_words(), Assets()
    pages = Pages(
        words, assets.url_of, clock, origins=origins, links=LINKS,
        paths={place.name: place.path for place in PLACES},
    )  # fmt: skip
    house = House(
        desk=msgspec.structs.replace(desk_of(in_force, services, clock, sessions), federation=federation),
        pages=pages, origins=origins,
        addresses=Addresses(settings.trusted_proxies), words=words,
        places={place.name: place for place in PLACES}, status_of=status_of,
    )  # fmt: skip
    return Portal(routes(house, assets), sessions)


def desk_of(in_force: InForce, services: Services, clock: Clock, sessions: Sessions) -> Desk:
    control = services.control
    return Desk(
        control=control,
        accounts=accounts_of(in_force, services, clock),
        sessions=sessions,
        playground=Playground(control.keys, clock),
        shelf=services.shelf,
        clock=clock,
        visible=services.gateway.route.visible,
        standings=lambda user: standings_of(user, services.gateway.admit, clock),
        replicas=services.upstream.replicas.seen,
        facts=lambda: facts_of(in_force),
    )


def accounts_of(in_force: InForce, services: Services, clock: Clock) -> Accounts:
    settings, control = in_force.settings, services.control
    assert settings.admin_key is not None, "an embedded gateway makes one, in production it is required"
    ground = Ground(
        store=services.store, state=services.state, clock=clock, audit=control.audit,
        configured=in_force.configuration,
    )  # fmt: skip
    return Accounts(
        ground, control.people, services.shelf, admin_key=settings.admin_key,
        rules=lambda: rules_of(in_force),
    )  # fmt: skip


def rules_of(in_force: InForce) -> AccountRules:
    settings = in_force.settings
    return AccountRules(
        is_private=settings.is_private,
        sign_in=settings.local_sign_in,
        sign_up=settings.local_sign_up,
    )


def facts_of(in_force: InForce) -> Facts:
    settings = in_force.settings
    return Facts(
        public_url=settings.public_url.rstrip("/"), currency=settings.currency, time_zone=settings.time_zone,
        version=__version__, sign_in_url=SIGN_IN if settings.file.saml else None,
        sign_in_name=name_of(settings.file.saml),
        version=__version__, key_rules=settings.file.policy.keys,
    )  # fmt: skip


def name_of(saml: Saml | None) -> str:
    """What the one button says; with several providers there is a page to choose on."""
    return saml.providers[0].name if saml is not None and len(saml.providers) == 1 else ""


def welcome_over(services: Services) -> Callable[[Actor, Identity], Awaitable[User]]:
    async def welcome(actor: Actor, identity: Identity) -> User:
        return await services.control.people.ensure(actor, identity.subject)

    return welcome


async def standings_of(user: User, admit: Admit, clock: Clock) -> Sequence[Standing]:
    """How the limits of a user and of the user's project stand; those of keys and models stand with them."""
    book = admit.book
    limits: list[tuple[ScopeKind, str, Limits]] = [("user", user.id, book.user_limits(user.id, user.limits))]
    if user.project is not None:
        limits.append(("project", user.project, book.projects.get(user.project, NO_LIMITS)))
    scopes = [Scope(kind, id, own) for kind, id, own in limits if own != NO_LIMITS]
    return await admit.limiter.standings(scopes, admit.calendar.period_of(clock.now())) if scopes else ()
