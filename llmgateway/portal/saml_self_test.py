"""Before anybody signs in: the libraries believe a good response and refuse a forged one.

Both are signed with our own key, as if we were an identity provider; what differs is one letter of the name.
"""

from datetime import UTC, datetime, timedelta

from onelogin.saml2.utils import OneLogin_Saml2_Utils

from llmgateway.domain.ports import SystemClock
from llmgateway.domain.saml import IdentityProvider, Saml
from llmgateway.portal.saml import DIGESTED_BY, METADATA, REDIRECT, SIGNED_BY, ServiceProvider
from llmgateway.portal.saml_guard import ASSERTION, BEARER, PERSISTENT, PROTOCOL, SIGNATURE, SUCCESS, Refused

ISSUER = "urn:llmgateway:self-test"
REQUEST = "_request"


def check(sp: ServiceProvider, saml: Saml) -> None:
    """Raises `Refused`."""
    now = SystemClock.now()
    good = _response(sp, saml, now)
    provider = IdentityProvider(id="self-test", name="self-test", metadata="")
    idp = sp.trusted(provider, _metadata(saml).encode(), now)
    if sp.prove(idp, good, REQUEST, now).name_id != "alice":
        raise Refused("the libraries misread a good response")
    try:
        sp.prove(idp, good.replace(b">alice<", b">alicf<"), REQUEST, now)
    except Refused:
        return
    raise Refused("the libraries believe a forged response: lxml and xmlsec must fit each other")


def _response(sp: ServiceProvider, saml: Saml, now: datetime) -> bytes:
    begin, end = _written(now), _written(now + timedelta(minutes=5))
    assertion = _signed(
        saml,
        f"""<a:Assertion xmlns:a="{ASSERTION}" ID="_a" Version="2.0" IssueInstant="{begin}">
<a:Issuer>{ISSUER}</a:Issuer><a:Subject><a:NameID Format="{PERSISTENT}">alice</a:NameID>
<a:SubjectConfirmation Method="{BEARER}"><a:SubjectConfirmationData Recipient="{sp.address}"
 NotOnOrAfter="{end}" InResponseTo="{REQUEST}"/></a:SubjectConfirmation></a:Subject>
<a:Conditions NotBefore="{begin}" NotOnOrAfter="{end}"><a:AudienceRestriction>
<a:Audience>{sp.entity_id}</a:Audience></a:AudienceRestriction></a:Conditions>
<a:AuthnStatement AuthnInstant="{begin}"><a:AuthnContext>
<a:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</a:AuthnContextClassRef>
</a:AuthnContext></a:AuthnStatement></a:Assertion>""",
    )
    return _signed(
        saml,
        f"""<p:Response xmlns:p="{PROTOCOL}" xmlns:a="{ASSERTION}" ID="_r" Version="2.0"
 IssueInstant="{begin}" Destination="{sp.address}" InResponseTo="{REQUEST}"><a:Issuer>{ISSUER}</a:Issuer>
<p:Status><p:StatusCode Value="{SUCCESS}"/></p:Status>{assertion.decode()}</p:Response>""",
    )


def _signed(saml: Saml, document: str) -> bytes:
    pair = saml.pairs[0]
    whole = OneLogin_Saml2_Utils.add_sign(
        document, pair.key.reveal(), pair.certificate, sign_algorithm=SIGNED_BY, digest_algorithm=DIGESTED_BY
    )
    return whole.encode() if isinstance(whole, str) else bytes(whole)


def _metadata(saml: Saml) -> str:
    body = "".join(saml.pairs[0].certificate.splitlines()[1:-1])
    return f"""<m:EntityDescriptor xmlns:m="{METADATA}" xmlns:s="{SIGNATURE}" entityID="{ISSUER}">
<m:IDPSSODescriptor protocolSupportEnumeration="{PROTOCOL}"><m:KeyDescriptor use="signing"><s:KeyInfo>
<s:X509Data><s:X509Certificate>{body}</s:X509Certificate></s:X509Data></s:KeyInfo></m:KeyDescriptor>
<m:SingleSignOnService Binding="{REDIRECT}" Location="https://self-test.invalid/"/>
</m:IDPSSODescriptor></m:EntityDescriptor>"""


def _written(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
