"""The portal put together: its parts, and what they are told of the settings in force."""

import msgspec
from msgspec import Struct
from starlette.routing import BaseRoute

from llmgateway import __version__
from llmgateway.app.federated import Prepared, federation_over
from llmgateway.app.in_force import InForce
from llmgateway.app.memory import Memory
from llmgateway.app.services import Services, standings_now
from llmgateway.control.accounts import AccountRules, Accounts
from llmgateway.control.ground import Ground
from llmgateway.control.playground import Playground
from llmgateway.control.services import Control
from llmgateway.domain.ports import Clock
from llmgateway.domain.saml import Saml
from llmgateway.edge.errors import status_of
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
        prepared, settings, services, clock, sessions=sessions, welcome=services.control.enrolment.welcome
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
        erasure=services.erasure,
        accounts=accounts_of(in_force, services, control, clock),
        sessions=sessions,
        playground=Playground(control.keys, clock),
        shelf=services.shelf,
        clock=clock,
        visible=services.gateway.route.visible,
        standings=lambda scopes: standings_now(services, scopes),
        replicas=services.upstream.replicas.seen,
        open_calls=services.live.all,
        refusals=lambda user, most: services.refusals.of(user, clock.now(), most),
        config=lambda: in_force.settings.masked(),
        facts=lambda: facts_of(in_force),
    )


def accounts_of(in_force: InForce, over: Services | Memory, control: Control, clock: Clock) -> Accounts:
    settings = in_force.settings
    assert settings.admin_key is not None, "an embedded gateway makes one, in production it is required"
    ground = Ground(
        store=over.store, state=over.state, clock=clock, audit=control.audit,
        configured=in_force.configuration,
    )  # fmt: skip
    return Accounts(
        ground, control.people, over.shelf, admin_key=settings.admin_key,
        rules=lambda: rules_of(in_force),
    )  # fmt: skip


def rules_of(in_force: InForce) -> AccountRules:
    settings = in_force.settings
    return AccountRules(
        is_private=settings.is_private,
        has_provider=settings.file.saml is not None,
        sign_in=settings.local_sign_in,
        sign_up=settings.local_sign_up,
    )


def facts_of(in_force: InForce) -> Facts:
    settings = in_force.settings
    return Facts(
        public_url=settings.public_url.rstrip("/"), currency=settings.currency, time_zone=settings.time_zone,
        version=__version__, sign_in_url=SIGN_IN if settings.file.saml else None,
        sign_in_name=name_of(settings.file.saml), key_rules=settings.file.policy.keys,
    )  # fmt: skip


def name_of(saml: Saml | None) -> str:
    """What the one button says; with several providers there is a page to choose on."""
    return saml.providers[0].name if saml is not None and len(saml.providers) == 1 else ""
