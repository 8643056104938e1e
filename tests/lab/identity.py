"""An identity provider of our own: it signs whatever a test wants said, with xmlsec alone."""

import base64
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import trustme
import xmlsec
from lxml import etree

from llmgateway.domain.saml import KeyPair
from llmgateway.domain.secret import Secret

A = "urn:oasis:names:tc:SAML:2.0:assertion"
P = "urn:oasis:names:tc:SAML:2.0:protocol"
S = "http://www.w3.org/2000/09/xmldsig#"
E = "http://www.w3.org/2001/04/xmlenc#"
M = "urn:oasis:names:tc:SAML:2.0:metadata"
NAMES = {"a": A, "p": P, "s": S, "e": E, "m": M}
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
EPPN = "urn:oid:1.3.6.1.4.1.5923.1.1.1.6"
RSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"

Change = Callable[[Any], None]
"""Turns the root of a response into something else."""


def new_pair(name: str = "pair", *, until: datetime | None = None) -> KeyPair:
    """RSA, of an authority that nobody knows."""
    made = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert(
        f"{name}.example.org", key_type=trustme.KeyType.RSA, not_after=until,
        not_before=None if until is None else until - timedelta(days=365),
    )  # fmt: skip
    return KeyPair(made.cert_chain_pems[0].bytes().decode().strip(),
                   Secret(made.private_key_pem.bytes().decode().strip()))  # fmt: skip


class TestIdp:
    """`pairs`: the first signs, all stand in the metadata. `now` is what it believes the time to be."""

    __test__ = False

    def __init__(self, *pairs: KeyPair, entity_id: str = "https://idp.example.org/idp",
                 url: str = "https://idp.example.org") -> None:  # fmt: skip
        self.pairs = list(pairs)
        self.entity_id = entity_id
        self.url = url
        self.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
        self._number = 0

    def metadata(self, *, sign_by: KeyPair | None = None, until: datetime | None = None) -> bytes:
        keys = "".join(
            f'<m:KeyDescriptor use="signing"><s:KeyInfo><s:X509Data><s:X509Certificate>{body(pair)}'
            "</s:X509Certificate></s:X509Data></s:KeyInfo></m:KeyDescriptor>"
            for pair in self.pairs
        )
        valid = "" if until is None else f' validUntil="{written(until)}"'
        redirect = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
        document = f"""<m:EntityDescriptor xmlns:m="{M}" xmlns:s="{S}" entityID="{self.entity_id}"
 ID="_m"{valid}><m:IDPSSODescriptor protocolSupportEnumeration="{P}">{keys}
<m:SingleLogoutService Binding="{redirect}" Location="{self.url}/slo"/>
<m:SingleSignOnService Binding="{redirect}" Location="{self.url}/sso"/></m:IDPSSODescriptor>
</m:EntityDescriptor>"""
        root = etree.fromstring(document)
        if sign_by is not None:
            sign(root, sign_by, at=0)
        return bytes(etree.tostring(root))

    def response(
        self, sp: Any, request: str | None, *, name_id: str = "alice",
        attributes: Mapping[str, Any] | None = None,
        before: Change | None = None, between: Change | None = None, after: Change | None = None,
        signs_response: bool = True, signs_assertion: bool = True, pair: KeyPair | None = None,
        method: Any = None, digest: Any = None, encrypt_for: KeyPair | None = None,
    ) -> bytes:  # fmt: skip
        """`before` either signature, `between` them (what is in the assertion is signed by then), `after`
        both."""
        self._number += 1
        root = etree.fromstring(self._text(sp, request, name_id, attributes or {EPPN: ["alice@example.org"]}))
        pair = pair or self.pairs[0]
        assertion = root.find("a:Assertion", NAMES)
        if before is not None:
            before(root)
        if signs_assertion:
            sign(assertion, pair, method=method, digest=digest)
        if between is not None:
            between(root)
        if encrypt_for is not None:
            encrypt(root, encrypt_for)
        if signs_response:
            sign(root, pair, method=method, digest=digest)
        if after is not None:
            root = etree.fromstring(etree.tostring(root))  # xmlsec's own elements are not found before
            after(root)
        return bytes(etree.tostring(root))

    def _text(self, sp: Any, request: str | None, name_id: str, attributes: Mapping[str, Any]) -> str:
        begin, end = written(self.now), written(self.now + timedelta(minutes=5))
        answered = "" if request is None else f' InResponseTo="{request}"'
        said = "".join(
            f'<a:Attribute Name="{name}">'
            + "".join(f"<a:AttributeValue>{value}</a:AttributeValue>" for value in values) + "</a:Attribute>"
            for name, values in attributes.items()
        )  # fmt: skip
        return f"""<p:Response xmlns:p="{P}" xmlns:a="{A}" ID="_r{self._number}" Version="2.0" IssueInstant="{
            begin
        }"
 Destination="{sp.address}"{answered}><a:Issuer>{self.entity_id}</a:Issuer><p:Status><p:StatusCode
 Value="{SUCCESS}"/></p:Status><a:Assertion ID="_a{self._number}" Version="2.0" IssueInstant="{
            begin
        }"><a:Issuer>{self.entity_id}</a:Issuer><a:Subject><a:NameID Format="{PERSISTENT}">{
            name_id
        }</a:NameID>
<a:SubjectConfirmation Method="{BEARER}"><a:SubjectConfirmationData Recipient="{sp.address}"
 NotOnOrAfter="{end}"{answered}/></a:SubjectConfirmation></a:Subject><a:Conditions NotBefore="{begin}"
 NotOnOrAfter="{end}"><a:AudienceRestriction><a:Audience>{sp.entity_id}</a:Audience></a:AudienceRestriction>
</a:Conditions><a:AuthnStatement AuthnInstant="{begin}" SessionIndex="_s{self._number}"><a:AuthnContext>
<a:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</a:AuthnContextClassRef></a:AuthnContext>
</a:AuthnStatement><a:AttributeStatement>{said}</a:AttributeStatement></a:Assertion></p:Response>"""

    def sign_out(self, address: str, name_id: str, *sessions: str, pair: KeyPair | None = None,
                 signs: bool = True, inside: str = "") -> str:  # fmt: skip
        """The query of a request by redirect."""
        listed = "".join(f"<p:SessionIndex>{session}</p:SessionIndex>" for session in sessions)
        document = f"""<p:LogoutRequest xmlns:p="{P}" xmlns:a="{A}" ID="_out{self._number}" Version="2.0"
 IssueInstant="{written(self.now)}" Destination="{address}">
<a:Issuer>{self.entity_id}</a:Issuer>{inside}<a:NameID
 Format="{PERSISTENT}">{name_id}</a:NameID>{listed}</p:LogoutRequest>"""
        query = f"SAMLRequest={quote(deflated(document.encode()), safe='')}&RelayState=there"
        if not signs:
            return query
        query += f"&SigAlg={quote(RSA_SHA256, safe='')}"
        context = xmlsec.SignatureContext()
        context.key = key_of(pair or self.pairs[0])
        signature = context.sign_binary(query.encode(), xmlsec.constants.TransformRsaSha256)
        return f"{query}&Signature={quote(base64.b64encode(signature).decode(), safe='')}"


def sign(element: Any, pair: KeyPair, *, method: Any = None, digest: Any = None, at: int = 1) -> None:
    """Behind the issuer, over the element itself."""
    signature = xmlsec.template.create(
        element, xmlsec.constants.TransformExclC14N, method or xmlsec.constants.TransformRsaSha256, ns="s"
    )
    reference = xmlsec.template.add_reference(
        signature, digest or xmlsec.constants.TransformSha256, uri=f"#{element.get('ID')}"
    )
    xmlsec.template.add_transform(reference, xmlsec.constants.TransformEnveloped)
    xmlsec.template.add_transform(reference, xmlsec.constants.TransformExclC14N)
    element.insert(at, signature)
    xmlsec.tree.add_ids(element.getroottree().getroot(), ["ID"])
    context = xmlsec.SignatureContext()
    context.key = key_of(pair)
    context.sign(signature)


def encrypt(root: Any, pair: KeyPair, *, transport: Any = None) -> None:
    """The assertion, for the holder of the key."""
    assertion = root.find("a:Assertion", NAMES)
    manager = xmlsec.KeysManager()
    manager.add_key(xmlsec.Key.from_memory(pair.certificate, xmlsec.constants.KeyDataFormatCertPem))
    data = xmlsec.template.encrypted_data_create(
        assertion, xmlsec.constants.TransformAes256Gcm, type=xmlsec.constants.TypeEncElement, ns="e"
    )
    xmlsec.template.encrypted_data_ensure_cipher_value(data)
    info = xmlsec.template.encrypted_data_ensure_key_info(data, ns="s")
    key = xmlsec.template.add_encrypted_key(info, transport or xmlsec.constants.TransformRsaOaep)
    xmlsec.template.encrypted_data_ensure_cipher_value(key)
    context = xmlsec.EncryptionContext(manager)
    context.key = xmlsec.Key.generate(xmlsec.constants.KeyDataAes, 256, xmlsec.constants.KeyDataTypeSession)
    holder = etree.SubElement(root, f"{{{A}}}EncryptedAssertion")
    holder.append(assertion)
    context.encrypt_xml(data, assertion)


def key_of(pair: KeyPair) -> Any:
    return xmlsec.Key.from_memory(pair.key.reveal(), xmlsec.constants.KeyDataFormatPem)


def body(pair: KeyPair) -> str:
    return "".join(pair.certificate.splitlines()[1:-1])


def written(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def deflated(document: bytes) -> str:
    engine = zlib.compressobj(wbits=-15)
    return base64.b64encode(engine.compress(document) + engine.flush()).decode()
