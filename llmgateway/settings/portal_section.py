"""The file's `portal`: the terms of use that people accept before they use the gateway."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct, structs

from llmgateway.domain.fields import Fields
from llmgateway.domain.scalars import Wrong, described, text
from llmgateway.domain.terms import Terms

LONGEST_VERSION, LONGEST_TEXT = 40, 200_000
LINES: Mapping[int, None] = MappingProxyType(dict.fromkeys(map(ord, "\r\n\t")))


class PortalSection(Struct, frozen=True, kw_only=True):
    """`terms` is None where there are none to accept."""

    terms: Terms | None = None


def read_portal(fields: Fields) -> PortalSection:
    terms = _read_terms(fields.section("terms")) if fields.raw("terms") is not None else None
    fields.done()
    return PortalSection(terms=terms)


def portal_entry(portal: PortalSection) -> Mapping[str, Any]:
    """As it would be written."""
    return {"terms": None if portal.terms is None else structs.asdict(portal.terms)}


def _read_terms(fields: Fields) -> Terms:
    terms = Terms(version=fields.need("version", _version, "-"), text=fields.need("text", _text, "-"))
    fields.done()
    return terms


def _version(value: object) -> str:
    """A date or a number is as good as a word."""
    written = text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    if len(written) > LONGEST_VERSION or not written.isprintable():
        raise Wrong(f"must be a short word such as 2026-11, not {described(value)}")
    return written


def _text(value: object) -> str:
    """Several lines."""
    if not isinstance(value, str) or not value.strip():
        raise Wrong(f"must be text, not {described(value)}")
    if len(value) > LONGEST_TEXT:
        raise Wrong(f"must have at most {LONGEST_TEXT} characters")
    if not value.translate(LINES).isprintable():
        raise Wrong("must hold no control characters beside line ends and tabs")
    return value.strip()
