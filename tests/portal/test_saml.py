"""Our messages to identity providers, what we believe of their metadata, and their requests to sign out."""

import base64
import zlib
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import pytest
from lxml import etree

from llmgateway.domain.saml import IdentityProvider, KeyPair, Saml
from llmgateway.domain.secret import Secret
from llmgateway.portal.saml import Idp, ServiceProvider
from llmgateway.portal.saml_guard import Refused
from tests.lab.identity import NAMES, TestIdp, body, new_pair

OURS, NEXT, THEIRS, THEIR_NEXT, FEDERATION = (new_pair(name) for name in ("a", "b", "c", "d", "e"))


def now() -> datetime:
    """The library looks at no other clock."""
    return datetime.now(UTC).replace(microsecond=0)


def provider(**said: str) -> IdentityProvider:
    return IdentityProvider(id="uni", name="uni", metadata="", **said)  # type: ignore[arg-type]  # texts only


@pytest.fixture
def idp() -> TestIdp:
    made = TestIdp(THEIRS)
    made.now = now()
    return made


@pytest.fixture(scope="module")
def sp() -> ServiceProvider:
    return ServiceProvider(Saml(pairs=(OURS, NEXT), providers=()), "https://gateway.example.org/")


@pytest.fixture
def known(sp: ServiceProvider, idp: TestIdp) -> Idp:
    return sp.trusted(provider(), idp.metadata(), now())


def message(url: str, name: str) -> etree._Element:
    (text,) = parse_qs(urlsplit(url).query)[name]
    return etree.fromstring(zlib.decompress(base64.b64decode(text), -15))


def test_our_metadata_names_our_addresses_and_both_certificates(sp: ServiceProvider) -> None:
    root = etree.fromstring(sp.metadata())
    assert root.get("entityID") == "https://gateway.example.org/saml/metadata"
    locations = {one.get("Location") for one in root.iter() if one.get("Location")}
    assert locations == {"https://gateway.example.org/saml/acs", "https://gateway.example.org/saml/sls"}
    certificates = {"".join(str(one.text).split()) for one in root.iterfind(".//s:X509Certificate", NAMES)}
    assert {body(OURS), body(NEXT)} <= certificates
    assert root.find("s:Signature", NAMES) is not None
    assert root.get("validUntil") is None


@pytest.mark.parametrize("use", ["signing", "encryption"])
def test_either_certificate_may_verify_and_encrypt(sp: ServiceProvider, use: str) -> None:
    root = etree.fromstring(sp.metadata())
    found = root.findall(f"m:SPSSODescriptor/m:KeyDescriptor[@use='{use}']//s:X509Certificate", NAMES)
    assert {"".join(str(one.text).split()) for one in found} == {body(OURS), body(NEXT)}


def test_a_sign_in_is_asked_for_with_a_signature(sp: ServiceProvider, known: Idp) -> None:
    first, second = sp.ask(known), sp.ask(known)
    root = message(first.url, "SAMLRequest")
    assert first.url.startswith("https://idp.example.org/sso?")
    assert (root.get("ID"), root.get("Destination")) == (first.id, "https://idp.example.org/sso")
    assert root.get("AssertionConsumerServiceURL") == sp.address
    assert "Signature=" in first.url
    assert first.id != second.id


def test_s_saml_23_addresses_are_those_of_the_configuration(sp: ServiceProvider) -> None:
    assert (sp.address, sp.entity_id) == (
        "https://gateway.example.org/saml/acs", "https://gateway.example.org/saml/metadata",
    )  # fmt: skip


# --- metadata ----------------------------------------------------------------------------------------------


def test_s_saml_21_two_signing_certificates_are_both_believed(sp: ServiceProvider, idp: TestIdp) -> None:
    idp.pairs.append(THEIR_NEXT)
    known = sp.trusted(provider(), idp.metadata(), now())
    for pair in (THEIRS, THEIR_NEXT):
        assert sp.prove(known, idp.response(sp, "_q", pair=pair), "_q", now()).name_id == "alice"


def test_s_saml_21_how_long_a_provider_signs_is_known_of_its_last_certificate(
    sp: ServiceProvider, idp: TestIdp
) -> None:
    """What has ended is believed nevertheless: the metadata says whose key it is, and still does."""
    ended, soon = now() - timedelta(days=2), now() + timedelta(days=5)
    idp.pairs[:] = [new_pair("ended", until=ended)]
    known = sp.trusted(provider(), idp.metadata(), now())
    assert known.signs_until == ended
    assert sp.prove(known, idp.response(sp, "_q"), "_q", now()).name_id == "alice"
    idp.pairs.append(new_pair("soon", until=soon))
    assert sp.trusted(provider(), idp.metadata(), now()).signs_until == soon


def test_s_saml_21_metadata_must_be_signed_where_that_is_asked(sp: ServiceProvider, idp: TestIdp) -> None:
    asked = provider(metadata_certificate=FEDERATION.certificate)
    assert sp.trusted(asked, idp.metadata(sign_by=FEDERATION), now()).entity_id == idp.entity_id
    for document in (idp.metadata(), idp.metadata(sign_by=THEIRS),
                     idp.metadata(sign_by=FEDERATION).replace(b"/sso", b"/evil")):  # fmt: skip
        with pytest.raises(Refused):
            sp.trusted(asked, document, now())


def test_s_saml_21_a_signature_over_metadata_is_of_all_of_it_and_by_what_holds(
    sp: ServiceProvider, idp: TestIdp
) -> None:
    asked = provider(metadata_certificate=FEDERATION.certificate)
    elsewhere = idp.metadata(sign_by=FEDERATION).replace(b'URI="#_m"', b'URI=""')
    broken = idp.metadata(sign_by=FEDERATION).replace(b"xmldsig-more#rsa-sha256", b"xmldsig#rsa-sha1")
    for document, why in ((elsewhere, "something else than its parent"), (broken, "a signature method")):
        with pytest.raises(Refused, match=why):
            sp.trusted(asked, document, now())


def test_metadata_with_nothing_that_signs_is_of_no_use(sp: ServiceProvider) -> None:
    with pytest.raises(Refused, match="no certificate that signs"):
        sp.trusted(provider(), TestIdp().metadata(), now())


def test_s_saml_21_metadata_expires(sp: ServiceProvider, idp: TestIdp) -> None:
    assert sp.trusted(provider(), idp.metadata(until=now() + timedelta(days=1)), now()).sign_out_url
    with pytest.raises(Refused, match="not valid any more"):
        sp.trusted(provider(), idp.metadata(until=now()), now())


def test_one_of_a_federation_is_chosen_by_its_id(sp: ServiceProvider, idp: TestIdp) -> None:
    other = TestIdp(THEIR_NEXT, entity_id="urn:other")
    both = b"<m:EntitiesDescriptor xmlns:m='%s'>" % NAMES["m"].encode()
    both += idp.metadata() + other.metadata() + b"</m:EntitiesDescriptor>"
    assert sp.trusted(provider(entity_id="urn:other"), both, now()).entity_id == "urn:other"
    with pytest.raises(Refused, match="several"):
        sp.trusted(provider(), both, now())
    with pytest.raises(Refused, match="no identity provider"):
        sp.trusted(provider(entity_id="urn:third"), both, now())


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"SingleSignOnService", b"SingleNothing"), (b"X509Certificate", b"X509Nothing"),
     (b"https://idp.example.org/sso", b"javascript:alert(1)"), (b"<m:Entity", b"<!DOCTYPE x><m:Entity"),
     (b"https://idp.example.org/sso", b"https://[idp/sso"), (b"</m:EntityDescriptor>", b"")],
)  # fmt: skip
def test_metadata_that_is_of_no_use(sp: ServiceProvider, idp: TestIdp, old: bytes, new: bytes) -> None:
    with pytest.raises(Refused):
        sp.trusted(provider(), idp.metadata().replace(old, new), now())


def test_answers_to_a_sign_out_may_go_elsewhere_but_to_no_script(sp: ServiceProvider, idp: TestIdp) -> None:
    def known_by(place: bytes) -> Idp:
        told = idp.metadata().replace(b'/slo"/>', b'/slo" ResponseLocation="%b"/>' % place)
        return sp.trusted(provider(), told, now())

    known, query = known_by(b"https://idp.example.org/slo/answers"), idp.sign_out(SLS, "alice")
    answer = sp.answer_out(known, sp.told_out(known, dict(parse_qsl(query)), query, now()), None)
    assert answer.startswith("https://idp.example.org/slo/answers?")
    with pytest.raises(Refused, match="an address that is none"):
        known_by(b"javascript:alert(1)")


def test_keys_that_do_not_fit_are_told_at_once() -> None:
    wrong = KeyPair(OURS.certificate, NEXT.key), KeyPair(OURS.certificate, Secret("no key"))
    for pair in wrong:
        with pytest.raises(Refused, match="certificate 2"):
            ServiceProvider(Saml(pairs=(OURS, pair), providers=()), "https://gateway.example.org")


# --- signing out -------------------------------------------------------------------------------------------


def told(sp: ServiceProvider, known: Idp, query: str) -> tuple[str, tuple[str, ...]]:
    asked = sp.told_out(known, dict(parse_qsl(query)), query, now())
    return asked.name_id, asked.sessions


SLS = "https://gateway.example.org/saml/sls"


def test_we_ask_to_sign_out_and_answer_who_asks(sp: ServiceProvider, known: Idp, idp: TestIdp) -> None:
    asked = sp.ask_out(known, "alice", "", "_s1")
    assert asked is not None
    root = message(asked.url, "SAMLRequest")
    assert root.findtext("p:SessionIndex", namespaces=NAMES) == "_s1"
    assert told(sp, known, idp.sign_out(SLS, "alice", "_s1", "_s2")) == ("alice", ("_s1", "_s2"))
    query = idp.sign_out(SLS, "alice")
    answer = sp.answer_out(known, sp.told_out(known, dict(parse_qsl(query)), query, now()), "there")
    assert message(answer, "SAMLResponse").get("InResponseTo") == "_out0"
    assert parse_qs(urlsplit(answer).query)["RelayState"] == ["there"]


def test_a_provider_without_single_logout_is_not_asked(sp: ServiceProvider, idp: TestIdp) -> None:
    document = idp.metadata().replace(b"SingleLogoutService", b"SingleNothing")
    assert sp.ask_out(sp.trusted(provider(), document, now()), "alice", "", "") is None


def test_s_saml_24_a_sign_out_that_nobody_signed(sp: ServiceProvider, known: Idp, idp: TestIdp) -> None:
    wrapped = "<p:Extensions><a:NameID>bob</a:NameID></p:Extensions>"
    late = TestIdp(THEIRS)
    late.now = now() - timedelta(hours=1)
    good = idp.sign_out(SLS, "alice")
    for query in (
        idp.sign_out(SLS, "alice", signs=False),
        idp.sign_out(SLS, "alice", pair=THEIR_NEXT),
        idp.sign_out("https://other.example.org/saml/sls", "alice"),
        late.sign_out(SLS, "alice"),
        TestIdp(THEIRS, entity_id="urn:other").sign_out(SLS, "alice"),
        good.replace("RelayState=there", "RelayState=elsewhere"),
        good.replace("rsa-sha256", "rsa-sha1"),
        idp.sign_out(SLS, "alice", signs=False, inside=wrapped),
        idp.sign_out(SLS, "alice", inside="<!-- -->"),
    ):
        with pytest.raises(Refused):
            told(sp, known, query)
    with pytest.raises(Refused, match="not signed as it should be"):
        told(sp, known, good.replace("rsa-sha256", "rsa-sha1"))


def test_s_saml_24_a_signed_sign_out_with_another_one_behind_it(
    sp: ServiceProvider, known: Idp, idp: TestIdp
) -> None:
    """The signature is over names as they are written; read decoded, the last one counts."""
    good, evil = idp.sign_out(SLS, "mallory"), idp.sign_out(SLS, "alice", signs=False)
    (text,) = parse_qs(evil)["SAMLRequest"]
    for name in ("SAMLReques%74", "%53AMLRequest", "SAMLRequest"):
        with pytest.raises(Refused, match="in two ways"):
            told(sp, known, f"{good}&{name}={quote(text, safe='')}")
    assert told(sp, known, good) == ("mallory", ())
