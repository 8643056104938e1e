"""When the certificates end that the configuration file holds: ours of SAML, and those that sign metadata."""

from collections.abc import Iterator
from contextlib import suppress

from llmgateway.domain.saml import Saml
from llmgateway.wire.certificate import NotACertificate, ends_at


def ends(saml: Saml | None) -> Iterator[tuple[str, float]]:
    """Names, and seconds since 1970. Ours are counted from 1, as the file does."""
    if saml is None:
        return
    named = [(f"saml-{number}", pair.certificate) for number, pair in enumerate(saml.pairs, 1)]
    named += [(f"metadata-{one.id}", one.metadata_certificate or "") for one in saml.providers]
    for name, text in named:
        with suppress(NotACertificate):
            yield name, ends_at(text).timestamp()
