"""What a SAML document must be before anybody believes it, and what is read from one that was verified.

The library verifies one element and may read another, as the many attacks that move signed assertions about
have shown. So nothing reaches it but a document of one form: one assertion, each signature in its place and
over its own parent, no comments, no entities, no second id, and algorithms that hold. What the library
checks leniently (audience, destination, recipient, times, the request that is answered) is checked here again
and exactly, in the document that it verified.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from lxml import etree
from msgspec import Struct

MOST_ENCODED = 512 * 1024  # characters of base64
MOST_BYTES = 384 * 1024
MOST_ELEMENTS, MOST_DEPTH = 5_000, 40
MOST_METADATA = 32 * 1024 * 1024  # bytes; a federation's file holds thousands
SKEW = timedelta(seconds=60)
STALE = timedelta(minutes=5)  # a sign-out that is older was kept by somebody

ASSERTION = "urn:oasis:names:tc:SAML:2.0:assertion"
PROTOCOL = "urn:oasis:names:tc:SAML:2.0:protocol"
SIGNATURE = "http://www.w3.org/2000/09/xmldsig#"
ENCRYPTION = "http://www.w3.org/2001/04/xmlenc#"
NAMES = {"a": ASSERTION, "p": PROTOCOL, "s": SIGNATURE, "e": ENCRYPTION}
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"

_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_ENC11 = "http://www.w3.org/2009/xmlenc11#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = SIGNATURE + "enveloped-signature"
SIGNED_BY = {_MORE + name for name in ("rsa-sha256", "rsa-sha384", "rsa-sha512", "ecdsa-sha256",
                                       "ecdsa-sha384", "ecdsa-sha512")}  # fmt: skip
DIGESTED_BY = {ENCRYPTION + "sha256", _MORE + "sha384", ENCRYPTION + "sha512"}
ENCRYPTED_BY = {_ENC11 + "aes128-gcm", _ENC11 + "aes192-gcm", _ENC11 + "aes256-gcm",
                ENCRYPTION + "aes128-cbc", ENCRYPTION + "aes192-cbc", ENCRYPTION + "aes256-cbc",
                ENCRYPTION + "rsa-oaep-mgf1p", _ENC11 + "rsa-oaep"}  # fmt: skip
QUERY = frozenset({"SAMLRequest", "SAMLEncoding", "RelayState", "SigAlg", "Signature"})
MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)", re.ASCII)

REFERRING = {f"{{{SIGNATURE}}}RetrievalMethod", f"{{{ENCRYPTION}}}CipherReference",
             "{http://www.w3.org/2009/xmldsig11#}KeyInfoReference"}  # fmt: skip

Element = Any  # lxml has no types of its own


class Refused(Exception):
    """Why a document is not believed: for the log, never for who brought it."""


class Expected(Struct, frozen=True, kw_only=True):
    """What a response must say. `request` is the id of the request that it answers, None where it answers
    none."""

    issuer: str
    audience: str
    address: str
    request: str | None
    now: datetime


class Proved(Struct, frozen=True, kw_only=True):
    """What a verified response says. `until` is when it may be forgotten that it was used."""

    id: str
    name_id: str
    name_id_format: str
    session_index: str
    attributes: Mapping[str, tuple[str, ...]]
    until: datetime


def decoded(text: str) -> bytes:
    """Base64, strictly: only white space may stand between."""
    if len(text) > MOST_ENCODED:
        raise Refused("the message is too large")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("the message is not base64") from None


def inflated(text: str) -> bytes:
    """Of the redirect binding; never more than is allowed, however small it came."""
    engine = zlib.decompressobj(-15)
    try:
        whole = engine.decompress(decoded(text), MOST_BYTES)
    except zlib.error:
        raise Refused("the message is not deflated") from None
    if not engine.eof:
        raise Refused("the message is too large, or cut off")
    return whole


def parsed(document: bytes, *, most: int = MOST_BYTES) -> Element:
    if len(document) > most:
        raise Refused("the document is too large")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise Refused("the document is no XML") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise Refused("a document type is declared")
    return root


def guarded(document: bytes, kind: str) -> Element:
    """The root of a document that may be given to the library; `kind` is the root's name."""
    root = parsed(document)
    if root.tag != f"{{{PROTOCOL}}}{kind}":
        raise Refused(f"this is no {kind}")
    _walk(root)
    for signature in root.iter(f"{{{SIGNATURE}}}Signature"):
        check_signature(signature)
    for method in root.iter(f"{{{ENCRYPTION}}}EncryptionMethod"):
        if method.get("Algorithm") not in ENCRYPTED_BY:
            raise Refused("an encryption that is broken or unknown")
    return root


def guarded_response(document: bytes) -> Element:
    root = guarded(document, "Response")
    assertions = [*root.iter(f"{{{ASSERTION}}}Assertion", f"{{{ASSERTION}}}EncryptedAssertion")]
    if len(assertions) != 1 or assertions[0].getparent() is not root:
        raise Refused("not exactly one assertion, in its place")
    holders = [signature.getparent() for signature in root.iter(f"{{{SIGNATURE}}}Signature")]
    if any(holder is not root and holder is not assertions[0] for holder in holders):
        raise Refused("a signature out of its place")
    if len(holders) != len(set(map(id, holders))):
        raise Refused("two signatures in one place")
    if next(root.iter(f"{{{ASSERTION}}}EncryptedAttribute", f"{{{ASSERTION}}}EncryptedID"), None) is not None:
        raise Refused("an encrypted attribute or name")
    return root


def proved(document: bytes, expected: Expected) -> Proved:
    """What a response says; the library has verified `document`, and decrypted it where it was encrypted."""
    root = guarded_response(document)
    assertion = _one(root, "a:Assertion")
    if any(_one(one, "s:Signature") is None for one in (root, assertion)):
        raise Refused("both the response and the assertion must be signed")
    _equal(root.get("Destination"), expected.address, "Destination")
    _equal(root.get("InResponseTo"), expected.request, "InResponseTo")
    _equal(_text(_one(root, "a:Issuer")), expected.issuer, "the response's Issuer")
    _equal(_text(_one(assertion, "a:Issuer")), expected.issuer, "the assertion's Issuer")
    _equal(_one(_one(root, "p:Status"), "p:StatusCode").get("Value"), SUCCESS, "the status")
    ends = [_check_conditions(_one(assertion, "a:Conditions"), expected)]
    ends.append(_check_confirmation(_one(_one(assertion, "a:Subject"), "a:SubjectConfirmation"), expected))
    statement = _one(assertion, "a:AuthnStatement")
    if (over := moment(statement.get("SessionNotOnOrAfter"))) is not None and over <= expected.now - SKEW:
        raise Refused("the session at the provider is over")
    name = _one(_one(assertion, "a:Subject"), "a:NameID")
    return Proved(
        id=assertion.get("ID", ""), name_id=_text(name), name_id_format=name.get("Format", ""),
        session_index=statement.get("SessionIndex", ""), attributes=_attributes(assertion),
        until=max(ends) + SKEW,
    )  # fmt: skip


def sign_out(root: Element, issuer: str, address: str,
             now: datetime) -> tuple[str, str, tuple[str, ...]]:  # fmt: skip
    """Of a guarded request: its id, whose sessions, and which of them."""
    _equal(_text(_one(root, "a:Issuer")), issuer, "the sign-out's Issuer")
    _equal(root.get("Destination"), address, "the sign-out's Destination")
    issued, ends = moment(root.get("IssueInstant")), moment(root.get("NotOnOrAfter"))
    if issued is None or not now - STALE < issued < now + SKEW or (ends is not None and ends <= now - SKEW):
        raise Refused("the sign-out is too old")
    sessions = tuple(_text(one) for one in root.findall("p:SessionIndex", NAMES))
    return root.get("ID", ""), _text(_one(root, "a:NameID")), sessions


def check_query(query: str) -> None:
    """The library verifies the query as it was written, we read it decoded: both must see the same."""
    names = [part.partition("=")[0] for part in query.split("&")]
    if len(names) != len(set(names)) or not QUERY.issuperset(names):
        raise Refused("a query that can be read in two ways")


def _walk(root: Element) -> None:
    """The whole tree, once."""
    ids: set[str] = set()
    count = 0
    stack = [(root, 1)]
    while stack:
        element, depth = stack.pop()
        count += 1
        if count > MOST_ELEMENTS or depth > MOST_DEPTH:
            raise Refused("the document is too large")
        if not isinstance(element.tag, str):
            raise Refused("a comment or an instruction")
        if element.tag == f"{{{SIGNATURE}}}Object":
            raise Refused("an object in a signature")
        if element.tag in REFERRING and not element.get("URI", "").startswith("#"):
            raise Refused("a part that lies elsewhere")
        for id in _ids_of(element):
            if id in ids:
                raise Refused("one id twice")
            ids.add(id)
        stack += ((child, depth + 1) for child in element)


def _ids_of(element: Element) -> Iterator[str]:
    """Only SAML's own `ID`, and the `Id` of signatures and encryption."""
    for written, value in element.attrib.items():
        name = etree.QName(str(written))
        if name.localname.lower() != "id":
            continue
        if name.namespace is not None:
            raise Refused("an id of another namespace")
        yield str(value)


def check_signature(signature: Element) -> None:
    """Over its own parent, by exclusive canonicalisation, with algorithms that hold."""
    parent = signature.getparent()
    info = _one(signature, "s:SignedInfo")
    reference = _one(info, "s:Reference")
    own = None if parent is None else parent.get("ID")
    if not own or reference.get("URI") != f"#{own}":
        raise Refused("a signature over something else than its parent")
    if _algorithm(info, "s:CanonicalizationMethod") != EXCLUSIVE:
        raise Refused("a canonicalisation that is not exclusive")
    if _algorithm(info, "s:SignatureMethod") not in SIGNED_BY:
        raise Refused("a signature method that is broken or unknown")
    if _algorithm(reference, "s:DigestMethod") not in DIGESTED_BY:
        raise Refused("a digest that is broken or unknown")
    if not _text(_one(reference, "s:DigestValue")) or not _text(_one(signature, "s:SignatureValue")):
        raise Refused("an empty digest or signature")
    transforms = [one.get("Algorithm") for one in _one(reference, "s:Transforms")]
    if transforms not in ([ENVELOPED, EXCLUSIVE], [ENVELOPED]):
        raise Refused("transforms that change more than they should")


def _check_conditions(conditions: Element, expected: Expected) -> datetime:
    _check_times(conditions, expected.now)
    audiences = [*_one(conditions, "a:AudienceRestriction")]
    if [_text(one) for one in audiences] != [expected.audience]:
        raise Refused("not for us, or not for us alone")
    return moment(conditions.get("NotOnOrAfter")) or expected.now


def _check_confirmation(confirmation: Element, expected: Expected) -> datetime:
    _equal(confirmation.get("Method"), BEARER, "the confirmation's method")
    data = _one(confirmation, "a:SubjectConfirmationData")
    _equal(data.get("Recipient"), expected.address, "Recipient")
    _equal(data.get("InResponseTo"), expected.request, "the confirmation's InResponseTo")
    _check_times(data, expected.now)
    until = moment(data.get("NotOnOrAfter"))
    if until is None:
        raise Refused("the confirmation has no end")
    return until


def _check_times(element: Element, now: datetime) -> None:
    begins, ends = moment(element.get("NotBefore")), moment(element.get("NotOnOrAfter"))
    if begins is not None and begins > now + SKEW:
        raise Refused("not valid yet")
    if ends is not None and ends <= now - SKEW:
        raise Refused("not valid any more")


def _attributes(assertion: Element) -> dict[str, tuple[str, ...]]:
    """By name, and by the friendly name where no other attribute has it."""
    found: dict[str, tuple[str, ...]] = {}
    friendly: dict[str, tuple[str, ...]] = {}
    for one in assertion.iterfind("a:AttributeStatement/a:Attribute", NAMES):
        values = tuple(value for each in one.iterfind("a:AttributeValue", NAMES) if (value := _text(each)))
        name = one.get("Name", "")
        found[name] = (*found.get(name, ()), *values)
        if called := one.get("FriendlyName"):
            friendly[called] = (*friendly.get(called, ()), *values)
    return friendly | found


def _one(element: Element, path: str) -> Element:
    found = element.findall(path, NAMES)
    if len(found) != 1:
        raise Refused(f"not exactly one {path.partition(':')[2]}")
    return found[0]


def _algorithm(element: Element, path: str) -> str | None:
    found = _one(element, path)
    if len(found) and path != "s:CanonicalizationMethod":
        raise Refused("parameters of an algorithm")
    algorithm: str | None = found.get("Algorithm")
    return algorithm


def _text(element: Element) -> str:
    """All of it: a NameID of persistent names stands within an attribute's value."""
    return "".join(element.itertext()).strip()


def _equal(given: str | None, expected: str | None, what: str) -> None:
    if given != expected:
        raise Refused(f"{what} is another")


def moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    parts = MOMENT.fullmatch(written)
    if parts is None:
        raise Refused("a time that cannot be read")
    try:
        return datetime.fromisoformat(parts[1]).replace(tzinfo=UTC)
    except ValueError:
        raise Refused("a time that cannot be read") from None
