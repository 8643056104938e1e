"""Templates made into pages: in the reader's language and colours, with headers that let nothing else in."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct
from starlette.responses import Response

from llmgateway.control.announcements import Announcement
from llmgateway.domain.ports import Clock
from llmgateway.portal.origin import Origins
from llmgateway.portal.paths import path_to
from llmgateway.portal.visit import CAUTIONS, SAID, Desk, Event, Page, Visit
from llmgateway.portal.words import LANGUAGES, Words

TEMPLATES = Path(__file__).with_name("templates")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "vary": "Cookie, Accept-Language",
}
HTML = "text/html; charset=utf-8"
HTTPS_ONLY = {"strict-transport-security": "max-age=31536000"}


class Link(Struct, frozen=True):
    """A line of the navigation; `name` is the place's."""

    name: str
    path: str
    title: str
    icon: str
    is_for_operators: bool = False


class Pages:
    """One environment for each language: translations are looked up once, not per request."""

    def __init__(
        self, words: Mapping[str, Words], assets: Mapping[str, str], clock: Clock, *,
        origins: Origins, links: Sequence[Link], paths: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._origins = origins
        self._links = links
        self._paths = paths
        self.headers = {**HEADERS, **(HTTPS_ONLY if origins.is_secure else {})}
        self._environments = {code: self._environment(one, assets) for code, one in words.items()}

    def response(
        self, desk: Desk, visit: Visit, page: Page, place: str | None,
        announcements: Sequence[Announcement] = (),
    ) -> Response:  # fmt: skip
        is_at_home = self._origins.is_at_home(visit.request)
        said = visit.request.query_params.get("said", "")
        values = {
            **page.values,
            "announcements": announcements,
            "visit": visit, "me": visit.user, "facts": desk.facts(), "place": place, "now": self._clock.now(),
            "links": self._links_for(visit), "languages": LANGUAGES,
            "base_url": self._origins.base_of(visit.request) if is_at_home else self._origins.public_url,
            "said": SAID.get(said), "said_kind": "warn" if said in CAUTIONS else "good",
        }  # fmt: skip
        template = self._environments[visit.words.code].get_template(page.template)
        headers = self.headers
        if desk.federation is not None and (origins := desk.federation.origins()):
            policy = " ".join((POLICY, *origins))  # its last word is where forms may lead: over a sign-out
            headers = {**headers, "content-security-policy": policy}
        return Response(template.render(values), page.status, media_type=HTML, headers=headers)

    def piece(self, desk: Desk, visit: Visit, event: Event) -> str:
        """A part of a page, as HTML."""
        values = {**event.values, "facts": desk.facts(), "now": self._clock.now()}
        return self._environments[visit.words.code].get_template(event.template).render(values)

    def _links_for(self, visit: Visit) -> list[Link]:
        is_operator = visit.user is not None and visit.user.is_operator
        return [link for link in self._links if is_operator or not link.is_for_operators]

    def _environment(self, words: Words, assets: Mapping[str, str]) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, auto_reload=False, extensions=["jinja2.ext.i18n"],
        )  # fmt: skip
        environment.install_gettext_callables(words.gettext, words.ngettext, newstyle=True)  # type: ignore[attr-defined]  # the extension's
        environment.globals |= {
            "asset": assets.__getitem__, "path": self._path, "words": words,
            "once": lambda: secrets.token_urlsafe(16), "later_than": _later_than,
        }  # fmt: skip
        environment.filters |= {
            "number": words.number, "short": words.short, "percent": words.percent, "day": words.day,
            "short_day": words.short_day,
            "ago": lambda moment: words.ago(moment, self._clock.now()),
            "translated": lambda text: words.gettext(text) if text else "",
            "utc": _utc,
        }  # fmt: skip
        return environment

    def _path(self, place: str, **parameters: Any) -> str:
        return path_to(self._paths[place], {name: str(value) for name, value in parameters.items()})


def _later_than(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
