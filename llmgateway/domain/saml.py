"""What operators say of SAML: this gateway as a service provider, and the providers that it trusts."""

from msgspec import Struct

from llmgateway.domain.secret import Secret

NAME_ID = "name-id"
SUBJECTS = (
    "urn:oasis:names:tc:SAML:attribute:pairwise-id",
    "urn:oasis:names:tc:SAML:attribute:subject-id",
    "urn:oid:1.3.6.1.4.1.5923.1.1.1.6",  # eduPersonPrincipalName
    "eduPersonPrincipalName",
    NAME_ID,
)
NAMES = ("urn:oid:2.16.840.1.113730.3.1.241", "displayName", "urn:oid:2.5.4.3", "cn")
MAILS = ("urn:oid:0.9.2342.19200300.100.1.3", "mail", "email")


class KeyPair(Struct, frozen=True):
    """PEM texts."""

    certificate: str
    key: Secret


class IdentityProvider(Struct, frozen=True, kw_only=True):
    """`id` stands in addresses, `name` on buttons. `metadata` is a path or an https address; what comes from
    an address is believed only when it is signed by `metadata_certificate`, a PEM text. `entity_id` chooses
    one of many in a federation's file. `scopes`: only subjects behind one of these, as in name@scope."""

    id: str
    name: str
    metadata: str
    metadata_certificate: str | None = None
    entity_id: str | None = None
    scopes: tuple[str, ...] = ()


class Saml(Struct, frozen=True, kw_only=True):
    """`entity_id` is the address of our metadata where none is given. `pairs`: the first signs, all decrypt,
    and all stand in our metadata; a new one is announced before it signs. `subject`, `names` and `mails`: the
    first attribute of these that is there counts."""

    entity_id: str | None = None
    pairs: tuple[KeyPair, ...]
    providers: tuple[IdentityProvider, ...]
    subject: tuple[str, ...] = SUBJECTS
    names: tuple[str, ...] = NAMES
    mails: tuple[str, ...] = MAILS
    allows_unsolicited: bool = False
