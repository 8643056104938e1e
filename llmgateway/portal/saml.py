"""This gateway as a SAML service provider: the one module that talks to python3-saml.

The library makes and signs our messages, decrypts, and verifies signatures. What it is given, and what is
read from what it verified, is `saml_guard`'s business. The address that it believes it was called at is
always the configured one, never one of a request.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import xmlsec
from lxml import etree
from msgspec import Struct
from onelogin.saml2.auth import OneLogin_Saml2_Auth
from onelogin.saml2.errors import OneLogin_Saml2_Error, OneLogin_Saml2_ValidationError
from onelogin.saml2.idp_metadata_parser import OneLogin_Saml2_IdPMetadataParser
from onelogin.saml2.settings import OneLogin_Saml2_Settings
from onelogin.saml2.utils import OneLogin_Saml2_Utils

from llmgateway.domain.saml import IdentityProvider, KeyPair, Saml
from llmgateway.portal import saml_guard
from llmgateway.portal.saml_guard import MOST_METADATA, Expected, Proved, Refused, decoded, inflated, parsed
from llmgateway.wire.certificate import NotACertificate, ends_at

METADATA = "urn:oasis:names:tc:SAML:2.0:metadata"
REDIRECT = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
POST = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
ANY_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
SIGNED_BY = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
DIGESTED_BY = "http://www.w3.org/2001/04/xmlenc#sha256"

# What the library raises on documents that it does not like; all of it is a refusal.
UNLIKED = (OneLogin_Saml2_Error, OneLogin_Saml2_ValidationError, xmlsec.Error, etree.Error,
           ValueError, TypeError, KeyError, IndexError, AttributeError)  # fmt: skip


class Idp(Struct, frozen=True, kw_only=True):
    """An identity provider as its metadata says, which counts `until` then. `settings` are the library's, one
    for each of our keys. `signs_until`: the end of the last of its certificates, None where none can be read.
    Signatures are believed after it, too; but a provider changes its certificate then, at the latest."""

    provider: IdentityProvider
    entity_id: str
    sign_out_url: str | None
    until: datetime | None
    signs_until: datetime | None
    settings: tuple[OneLogin_Saml2_Settings, ...]

    @property
    def origins(self) -> list[str]:
        """Where a sign-out sends the browser."""
        parts = urlsplit(self.sign_out_url or "")
        return [f"{parts.scheme}://{parts.netloc}"] if parts.netloc else []


class Asked(Struct, frozen=True):
    """A message for an identity provider: where the browser is sent with it, and its id."""

    url: str
    id: str


class SignOut(Struct, frozen=True, kw_only=True):
    """What a provider wants to end. `sessions` is empty for all of that name."""

    id: str
    name_id: str
    sessions: tuple[str, ...]


class ServiceProvider:
    """`base_url` is what users see. Raises `Refused`, at once, when our keys cannot be used or the library
    believes what it must not."""

    def __init__(self, saml: Saml, base_url: str) -> None:
        base = base_url.rstrip("/")
        self._saml = saml
        self.address = f"{base}/saml/acs"
        self._sign_out_address = f"{base}/saml/sls"
        self.entity_id = saml.entity_id or f"{base}/saml/metadata"
        self._parts = urlsplit(base)
        _check_pair(saml.pairs)

    # --- who is trusted ---

    def trusted(self, provider: IdentityProvider, document: bytes, now: datetime) -> Idp:
        """As the provider's metadata says; two signing certificates in it are both believed. Raises
        `Refused`."""
        root = parsed(document, most=MOST_METADATA)
        if provider.metadata_certificate is not None:
            _check_signed(document, root, provider.metadata_certificate)
        entity = _entity_in(root, provider.entity_id)
        ends = [saml_guard.moment(one.get("validUntil")) for one in (root, entity)]
        until = min((end for end in ends if end is not None), default=None)
        if until is not None and until <= now:
            raise Refused("the metadata is not valid any more")
        own = etree.tostring(entity)
        found = _guarded(lambda: OneLogin_Saml2_IdPMetadataParser.parse(own)).get("idp", {})
        if "singleSignOnService" not in found:
            raise Refused("the metadata has no place to sign in by redirect")
        if not (found.get("x509cert") or found.get("x509certMulti", {}).get("signing")):
            raise Refused("the metadata has no certificate that signs")
        leaving = found.get("singleLogoutService", {})
        if (answers := _answers_in(entity)) is not None:
            leaving["responseUrl"] = answers
        sign_out = leaving.get("url")
        for url in (found["singleSignOnService"]["url"], sign_out, leaving.get("responseUrl")):
            if url is not None and not _is_web(url):
                raise Refused("the metadata has an address that is none")
        signs_until = _last_end(found)  # before the library makes something else of it
        wholes = [self._settings(pair, found) for pair in self._saml.pairs]
        settings = _guarded(lambda: [OneLogin_Saml2_Settings(whole) for whole in wholes])
        return Idp(provider=provider, entity_id=found["entityId"], sign_out_url=sign_out, until=until,
                   signs_until=signs_until, settings=tuple(settings))  # fmt: skip

    def metadata(self) -> bytes:
        """Ours, signed; it announces a second certificate, too, and providers encrypt for either. It has no
        end: who keeps it as a file would be shut out by one."""
        whole = self._settings(self._saml.pairs[0], None)
        # The library names a certificate for encryption only to who takes nothing else; we take both.
        whole["security"] |= {"wantAssertionsEncrypted": True, "metadataValidUntil": ""}
        written = OneLogin_Saml2_Settings(whole, sp_validation_only=True).get_sp_metadata()
        return written.encode() if isinstance(written, str) else bytes(written)

    # --- signing in ---

    def ask(self, idp: Idp) -> Asked:
        auth = self._auth(idp)
        url = auth.login(return_to="")
        return Asked(url, auth.get_last_request_id())

    def prove(self, idp: Idp, document: bytes, request: str | None, now: datetime) -> Proved:
        """What a guarded response says. Raises `Refused`."""
        expected = Expected(
            issuer=idp.entity_id, audience=self.entity_id, address=self.address, request=request, now=now
        )
        _check_message(idp, document)
        why = Refused("no key of ours decrypts it")
        for settings in idp.settings:
            try:
                return saml_guard.proved(self._verified(settings, document, request), expected)
            except Refused as refused:
                why = refused
                if b"EncryptedAssertion" not in document:
                    break
        raise why

    def _verified(self, settings: OneLogin_Saml2_Settings, document: bytes, request: str | None) -> bytes:
        sent = {"SAMLResponse": base64.b64encode(document).decode()}
        auth = OneLogin_Saml2_Auth(self._request(self.address, post_data=sent), settings)
        _guarded(lambda: auth.process_response(request_id=request))
        if auth.get_errors() or not auth.is_authenticated():
            raise Refused(str(auth.get_last_error_reason() or "the library refuses it"))
        whole = auth.get_last_response_xml()
        return whole.encode() if isinstance(whole, str) else bytes(whole)

    # --- signing out ---

    def ask_out(self, idp: Idp, name_id: str, name_id_format: str, session: str) -> Asked | None:
        """None where the provider knows no single logout."""
        if idp.sign_out_url is None:
            return None
        auth = self._auth(idp)
        url = auth.logout(return_to="", name_id=name_id, session_index=session or None,
                          name_id_format=name_id_format or None)  # fmt: skip
        return Asked(url, auth.get_last_request_id())

    def told_out(self, idp: Idp, fields: Mapping[str, str], query: str, now: datetime) -> SignOut:
        """A provider's request to end sessions, by redirect. Raises `Refused`."""
        saml_guard.check_query(query)
        document = inflated(fields["SAMLRequest"])
        root = saml_guard.guarded(document, "LogoutRequest")
        if fields.get("SigAlg") not in saml_guard.SIGNED_BY:
            raise Refused("a sign-out that is not signed as it should be")
        asked = saml_guard.sign_out(root, idp.entity_id, self._sign_out_address, now)
        auth = self._auth(idp, get_data=dict(fields), query_string=query, validate_signature_from_qs=True)
        if not auth.validate_request_signature(dict(fields)):
            raise Refused("a sign-out that the provider did not sign")
        return SignOut(id=asked[0], name_id=asked[1], sessions=asked[2])

    def answer_out(self, idp: Idp, asked: SignOut, relay: str | None) -> str:
        """Where the browser goes with our answer."""
        auth = self._auth(idp)
        response = auth.logout_response_class(idp.settings[0])
        response.build(asked.id)
        parameters = {"SAMLResponse": response.get_response()}
        if relay is not None:
            parameters["RelayState"] = relay
        auth.add_response_signature(parameters, SIGNED_BY)
        url: str = auth.redirect_to(auth.get_slo_response_url() or idp.sign_out_url, parameters)
        return url

    # --- the library's settings ---

    def _auth(self, idp: Idp, **more: Any) -> OneLogin_Saml2_Auth:
        return OneLogin_Saml2_Auth(self._request(self._sign_out_address, **more), idp.settings[0])

    def _request(self, address: str, **more: Any) -> dict[str, Any]:
        parts = urlsplit(address)
        return {
            "https": "on" if parts.scheme == "https" else "off", "http_host": parts.netloc,
            "script_name": parts.path, "get_data": {}, "post_data": {}, **more,
        }  # fmt: skip

    def _settings(self, pair: KeyPair, idp: Mapping[str, Any] | None) -> dict[str, Any]:
        others = [one.certificate for one in self._saml.pairs if one is not pair]
        sp = {
            "entityId": self.entity_id,
            "assertionConsumerService": {"url": self.address, "binding": POST},
            "singleLogoutService": {"url": self._sign_out_address, "binding": REDIRECT},
            "NameIDFormat": ANY_FORMAT,
            "x509cert": pair.certificate,
            "privateKey": pair.key.reveal(),
        }  # fmt: skip
        if others:
            sp["x509certNew"] = others[0]
        security = {
            "authnRequestsSigned": True, "logoutRequestSigned": True, "logoutResponseSigned": True,
            "signMetadata": True, "wantMessagesSigned": True, "wantAssertionsSigned": True,
            "wantAttributeStatement": False, "requestedAuthnContext": False,
            "rejectDeprecatedAlgorithm": True, "signatureAlgorithm": SIGNED_BY,
            "digestAlgorithm": DIGESTED_BY, "allowRepeatAttributeName": True,
        }  # fmt: skip
        whole: dict[str, Any] = {"strict": True, "debug": False, "sp": sp, "security": security}
        return whole if idp is None else {**whole, "idp": dict(idp)}


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except UNLIKED as error:
        raise Refused(f"the library refuses it: {error}") from None


def _answers_in(entity: Any) -> str | None:
    """Where answers to a sign-out go, if that is another place than requests; the library overlooks it."""
    path = f"{{{METADATA}}}IDPSSODescriptor/{{{METADATA}}}SingleLogoutService"
    return next((one.get("ResponseLocation") for one in entity.iterfind(path)
                 if one.get("Binding") == REDIRECT), None)  # fmt: skip


def _check_message(idp: Idp, document: bytes) -> None:
    """Before anything is decrypted: what the provider did not send teaches nobody how decrypting fails."""
    said = idp.settings[0].get_idp_data()
    certificates = said.get("x509certMulti", {}).get("signing") or [said["x509cert"]]
    _guarded(lambda: OneLogin_Saml2_Utils.validate_sign(
        document, cert=certificates[0], multicerts=certificates,
        xpath=OneLogin_Saml2_Utils.RESPONSE_SIGNATURE_XPATH, raise_exceptions=True,
    ))  # fmt: skip


def _last_end(found: Mapping[str, Any]) -> datetime | None:
    ends: list[datetime] = []
    for text in found.get("x509certMulti", {}).get("signing") or [found.get("x509cert", "")]:
        with suppress(NotACertificate):
            ends.append(ends_at("".join(text.split())))
    return max(ends, default=None)


def _is_web(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("https", "http")
    except ValueError:
        return False


def _entity_in(root: Any, entity_id: str | None) -> Any:
    """The one identity provider that is meant."""
    entities = [
        one for one in root.iter(f"{{{METADATA}}}EntityDescriptor")
        if one.find(f"{{{METADATA}}}IDPSSODescriptor") is not None
        and entity_id in (None, one.get("entityID"))
    ]  # fmt: skip
    if len(entities) != 1:
        which = "no identity provider" if not entities else "several identity providers: say which entity_id"
        raise Refused(f"the metadata holds {which}")
    return entities[0]


def _check_signed(document: bytes, root: Any, certificate: str) -> None:
    signatures = root.findall(f"{{{saml_guard.SIGNATURE}}}Signature")
    if len(signatures) != 1:
        raise Refused("the metadata is not signed")
    saml_guard.check_signature(signatures[0])
    valid = _guarded(lambda: OneLogin_Saml2_Utils.validate_metadata_sign(
        document, cert=OneLogin_Saml2_Utils.format_cert(certificate), raise_exceptions=True
    ))  # fmt: skip
    if not valid:
        raise Refused("the metadata is not signed by the certificate that was given")


def _check_pair(pairs: Sequence[KeyPair]) -> None:
    """Each key signs what its certificate verifies."""
    for number, pair in enumerate(pairs, 1):
        try:
            signing, verifying = xmlsec.SignatureContext(), xmlsec.SignatureContext()
            signing.key = xmlsec.Key.from_memory(pair.key.reveal(), xmlsec.constants.KeyDataFormatPem)
            signature = signing.sign_binary(b"llmgateway", xmlsec.constants.TransformRsaSha256)
            verifying.key = xmlsec.Key.from_memory(pair.certificate, xmlsec.constants.KeyDataFormatCertPem)
            verifying.verify_binary(b"llmgateway", xmlsec.constants.TransformRsaSha256, signature)
        except (xmlsec.Error, ValueError, TypeError):
            raise Refused(f"certificate {number} and its key do not fit, or are not RSA") from None


__all__ = ["Asked", "Idp", "Refused", "ServiceProvider", "SignOut", "decoded"]
