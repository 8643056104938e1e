"""All places of the portal as one table: their addresses, what is done there, and who may come.

Those of operators stand in `operators/places.py`.
"""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from llmgateway.portal import (
    account,
    api,
    keys,
    models,
    overview,
    playground,
    saml_pages,
    sign_in,
    terms,
    usage,
)
from llmgateway.portal.assets import PREFIX, Assets
from llmgateway.portal.door import Door, House, Place
from llmgateway.portal.operators import places as operators
from llmgateway.portal.page import Link
from llmgateway.portal.visit import Show
from llmgateway.portal.words import later

ROOT = "/portal"
REFERENCE = "/docs"
KEY = f"{ROOT}/keys/{{id}}"


def _page(name: str, path: str, get: Show, post: Show | None = None) -> Place:
    """Somewhere to go by its name alone."""
    return Place(name=name, path=ROOT + path, get=get, post=post, is_destination=True)


OWN: Sequence[Place] = (
    _page("overview", "", overview.show),
    _page("keys", "/keys", keys.show, keys.create),
    _page("key-new", "/keys/new", keys.show_new),
    Place(name="key", path=KEY, get=keys.show_one, post=keys.rename),
    Place(name="key-rotate", path=f"{KEY}/rotate", post=keys.rotate),
    Place(name="key-revoke", path=f"{KEY}/revoke", get=keys.ask_revoke, post=keys.revoke),
    _page("usage", "/usage", usage.show),
    Place(name="usage-csv", path=f"{ROOT}/usage.csv", get=usage.as_csv),
    Place(name="usage-json", path=f"{ROOT}/usage.json", get=usage.as_json),
    _page("requests", "/requests", usage.show_requests),
    _page("models", "/models", models.show),
    Place(name="model", path=f"{ROOT}/models/{{id:path}}", get=models.show_one),
    _page("playground", "/playground", playground.show),
    Place(name="playground-key", path=f"{ROOT}/playground/key", post=playground.issue_key),
    Place(name="api", path=REFERENCE, get=api.show, needs="nobody", is_destination=True,
          is_for_strangers=True),
    _page("account", "/account", account.show, account.change_profile),
    Place(name="account-password", path=f"{ROOT}/account/password", post=account.change_password),
    Place(name="account-session", path=f"{ROOT}/account/sessions", post=account.end_session),
    Place(name="account-others", path=f"{ROOT}/account/sessions/others", post=account.end_others),
    Place(name="account-export", path=f"{ROOT}/account/export.json", get=account.export,
          is_before_terms=True),
    Place(name="account-forget", path=f"{ROOT}/account/forget", get=account.ask_forget, post=account.forget,
          is_before_terms=True),
    Place(name="terms", path=f"{ROOT}/terms", get=terms.show, post=terms.accept, is_destination=True,
          is_before_terms=True),
    Place(name="sign-in", path=f"{ROOT}/sign-in", get=sign_in.show_sign_in, post=sign_in.sign_in,
          needs="nobody", is_destination=True),
    Place(name="sign-up", path=f"{ROOT}/sign-up", get=sign_in.show_sign_up, post=sign_in.sign_up,
          needs="nobody", is_destination=True),
    Place(name="sign-out", path=f"{ROOT}/sign-out", post=sign_in.sign_out, needs="nobody"),
    Place(name="saml-login", path="/saml/login", get=saml_pages.login, needs="nobody"),
    Place(name="saml-acs", path="/saml/acs", post=saml_pages.acs, needs="nobody", is_from_elsewhere=True),
    Place(name="saml-arrive", path="/saml/arrive", get=saml_pages.arrive, needs="nobody"),
    Place(name="saml-metadata", path="/saml/metadata", get=saml_pages.metadata, needs="nobody"),
    Place(name="saml-slo", path="/saml/slo", get=saml_pages.slo, needs="nobody"),
    Place(name="saml-sls", path="/saml/sls", get=saml_pages.sls, post=saml_pages.sls, needs="nobody",
          is_from_elsewhere=True),
    Place(name="look", path=f"{ROOT}/look", post=sign_in.set_look, needs="nobody"),
)  # fmt: skip

PLACES: Sequence[Place] = (*OWN, *operators.PLACES)

LINKS: Sequence[Link] = (
    Link("overview", ROOT, later("Overview"), "home"),
    Link("keys", f"{ROOT}/keys", later("API keys"), "key"),
    Link("usage", f"{ROOT}/usage", later("Usage"), "chart"),
    Link("models", f"{ROOT}/models", later("Models"), "cube"),
    Link("playground", f"{ROOT}/playground", later("Playground"), "chat"),
    Link("api", REFERENCE, later("API"), "code"),
    Link("account", f"{ROOT}/account", later("Account"), "person"),
    *operators.LINKS,
)


def routes(house: House, assets: Assets) -> list[BaseRoute]:
    """Expected around them: request ids in the request's state."""
    nowhere = Door(house, None)
    return [
        Route("/", _to_the_portal),
        *(Route(path, _to_the_api) for path in (f"{ROOT}/api", "/request-viewer")),
        Route(f"{PREFIX}{{name}}", assets.serve),
        *(Route(place.path, Door(house, place)) for place in house.places.values()),
        *(Route(path, nowhere) for path in (f"{ROOT}/{{rest:path}}", "/saml/{rest:path}")),
    ]


async def _to_the_api(request: Request) -> Response:
    return RedirectResponse(REFERENCE, 307)


async def _to_the_portal(request: Request) -> Response:
    return RedirectResponse(ROOT, 307)
