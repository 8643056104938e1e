"""The file's `saml`: our keys and certificates, and the identity providers that are trusted."""

import re
from typing import Any

from llmgateway.domain.fields import Fields, fields_of
from llmgateway.domain.saml import MAILS, NAME_ID, NAMES, SUBJECTS, IdentityProvider, KeyPair, Saml
from llmgateway.domain.scalars import Reader, Wrong, described, flag, http_url, text
from llmgateway.domain.secret import MASK, Secret

CERTIFICATE = "CERTIFICATE"
PRIVATE_KEY = "(?:RSA |EC )?PRIVATE KEY"
ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
URI = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]*:[^\s<>"'&]+""", re.ASCII)
QUERY = re.compile(r"[A-Za-z0-9%&+,./:;=?@_~-]+", re.ASCII)
LONGEST_URI = 1024
MOST_PAIRS = 2
NOBODY = Secret("")


def read_saml(fields: Fields, complaints: list[str]) -> Saml:
    pairs = [_pair(fields_of(entry, path, complaints)) for path, entry in fields.items("certificates")]
    if not 1 <= len(pairs) <= MOST_PAIRS:
        fields.complain("certificates", f"must hold one to {MOST_PAIRS} pairs of certificate and key")
    providers = [_provider(fields_of(entry, path, complaints)) for path, entry in fields.items("providers")]
    if not providers:
        fields.complain("providers", "must name at least one identity provider")
    if len({one.id for one in providers}) < len(providers):
        fields.complain("providers", "must have an id each, of its own")
    saml = Saml(
        entity_id=fields.take("entity_id", _uri, None),
        pairs=tuple(pairs),
        providers=tuple(providers),
        subject=_attributes(fields, "subject", SUBJECTS),
        names=_attributes(fields, "names", NAMES),
        mails=_attributes(fields, "mails", MAILS),
        allows_unsolicited=fields.take("allows_unsolicited", flag, default=False),
    )
    if set(saml.subject) & set(saml.mails):
        fields.complain("subject", "must not be a mail address alone: those change hands")
    fields.done()
    return saml


def saml_entry(saml: Saml | None) -> dict[str, Any] | None:
    """As it would be written, keys masked."""
    if saml is None:
        return None
    return {
        "entity_id": saml.entity_id,
        "certificates": [{"certificate": pair.certificate, "key": MASK} for pair in saml.pairs],
        "providers": [
            {"id": one.id, "name": one.name, "metadata": one.metadata, "entity_id": one.entity_id,
             "metadata_certificate": one.metadata_certificate, "scopes": list(one.scopes)}
            for one in saml.providers
        ],
        "subject": list(saml.subject), "names": list(saml.names), "mails": list(saml.mails),
        "allows_unsolicited": saml.allows_unsolicited,
    }  # fmt: skip


def _pair(fields: Fields) -> KeyPair:
    pair = KeyPair(
        fields.need("certificate", _pem(CERTIFICATE), ""),
        Secret(fields.need("key", _pem(PRIVATE_KEY), "")),
    )
    fields.done()
    return pair


def _provider(fields: Fields) -> IdentityProvider:
    id = fields.need("id", _id, "-")
    provider = IdentityProvider(
        id=id,
        name=fields.take("name", text, id),
        metadata=fields.need("metadata", _place, "-"),
        metadata_certificate=fields.take("metadata_certificate", _pem(CERTIFICATE), None),
        entity_id=fields.take("entity_id", _uri, None),
        scopes=tuple(fields.elements("scopes", text)),
    )
    if "://" in provider.metadata and provider.metadata_certificate is None:
        fields.complain("metadata_certificate", "is needed: what comes over the network must be signed")
    fields.done()
    return provider


def _attributes(fields: Fields, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(fields.elements(name, text))
    if NAME_ID in found and name != "subject":
        fields.complain(name, f"{NAME_ID} is a subject only")
    return found or default


def _pem(kind: str) -> Reader[str]:
    form = re.compile(rf"-----BEGIN {kind}-----\s[A-Za-z0-9+/=\s]+-----END {kind}-----", re.ASCII)

    def read(value: object) -> str:
        written = value.strip() if isinstance(value, str) else ""
        if not form.fullmatch(written):
            raise Wrong("must be the text of a PEM file, such as ${file:saml/sp.crt}")
        return written

    return read


def _place(value: object) -> str:
    """A path, or an address that nobody can listen to or change on the way."""
    written = text(value)
    if "://" not in written:
        return written
    if not written.startswith("https://"):
        raise Wrong(f"must be a path or an https:// address, not {described(value)}")
    address, mark, query = written.partition("?")
    if mark and not QUERY.fullmatch(query):
        raise Wrong(f"must be an address that can be asked for as it is, not {described(value)}")
    http_url(address)  # raises, but would take a slash off that counts here
    return written


def _id(value: object) -> str:
    written = text(value)
    if not ID.fullmatch(written):
        raise Wrong(f"must be small letters, digits and '-', not {described(value)}")
    return written


def _uri(value: object) -> str:
    written = text(value)
    if len(written) > LONGEST_URI or not URI.fullmatch(written):
        raise Wrong(f"must be a URI such as https://gateway.example.org, not {described(value)}")
    return written
