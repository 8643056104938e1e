"""Responses that must not be believed, each built from a good one that is."""

import base64
import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
import xmlsec
from lxml import etree

from llmgateway.domain.saml import IdentityProvider, Saml
from llmgateway.portal.saml import Idp, ServiceProvider
from llmgateway.portal.saml_guard import (
    MOST_BYTES,
    MOST_ENCODED,
    Expected,
    Proved,
    Refused,
    decoded,
    guarded,
    guarded_response,
    inflated,
    moment,
    proved,
    sign_out,
)
from tests.lab.identity import NAMES, A, E, P, S, TestIdp, deflated, encrypt, new_pair, sign, written

OURS, NEXT, THEIRS, STRANGER = (new_pair(name) for name in ("sp", "next", "idp", "stranger"))
REQUEST = "_q1"
ASSERTION = f"{{{A}}}Assertion"
SIGNATURE = f"{{{S}}}Signature"

Change = Callable[[Any], object]


@pytest.fixture
def idp() -> TestIdp:
    made = TestIdp(THEIRS)
    made.now = datetime.now(UTC)
    return made


@pytest.fixture(scope="module")
def sp() -> ServiceProvider:
    return ServiceProvider(Saml(pairs=(OURS, NEXT), providers=()), "https://gateway.example.org")


@pytest.fixture
def known(sp: ServiceProvider, idp: TestIdp) -> Idp:
    return sp.trusted(IdentityProvider(id="uni", name="uni", metadata=""), idp.metadata(), idp.now)


class Door:
    """Where responses are brought."""

    def __init__(self, sp: ServiceProvider, known: Idp, idp: TestIdp) -> None:
        self.sp, self.known, self.idp = sp, known, idp

    def prove(self, document: bytes, request: str | None = REQUEST) -> Proved:
        guarded_response(document)
        return self.sp.prove(self.known, document, request, self.idp.now)

    def good(self, **said: Any) -> bytes:
        return self.idp.response(self.sp, REQUEST, **said)

    def refuses(self, document: bytes, why: str = "", request: str | None = REQUEST) -> None:
        with pytest.raises(Refused) as refused:
            self.prove(document, request)
        assert why in str(refused.value)


@pytest.fixture
def door(sp: ServiceProvider, known: Idp, idp: TestIdp) -> Door:
    return Door(sp, known, idp)


def assertion_of(root: Any) -> Any:
    return root.find("a:Assertion", NAMES)


def evil(root: Any) -> Any:
    """A copy of the assertion that says something else, unsigned."""
    other = copy.deepcopy(assertion_of(root))
    other.set("ID", "_evil")
    other.find("a:Subject/a:NameID", NAMES).text = "admin"
    for signature in other.findall("s:Signature", NAMES):
        other.remove(signature)
    return other


def set_text(path: str, text: str) -> Change:
    def change(root: Any) -> None:
        root.find(path, NAMES).text = text

    return change


def set_name(path: str, name: str, value: str | None) -> Change:
    """An attribute; None takes it away."""

    def change(root: Any) -> None:
        element = root if path == "." else root.find(path, NAMES)
        if value is None:
            del element.attrib[name]
        else:
            element.set(name, value)

    return change


XSLT = "http://www.w3.org/TR/1999/REC-xslt-19991116"
CONFIRMED = "a:Assertion/a:Subject/a:SubjectConfirmation/a:SubjectConfirmationData"
CONDITIONS = "a:Assertion/a:Conditions"


# --- what is believed --------------------------------------------------------------------------------------


def test_a_good_response_says_who_it_is(door: Door) -> None:
    proved = door.prove(door.good(attributes={"groups": ["staff", "gpu"], "mail": ["a@example.org"]}))
    assert (proved.name_id, proved.session_index[:2]) == ("alice", "_s")
    assert proved.attributes == {"groups": ("staff", "gpu"), "mail": ("a@example.org",)}
    assert proved.until > door.idp.now


@pytest.mark.parametrize("pair", [OURS, NEXT], ids=["now", "next"])
def test_it_may_be_encrypted_for_either_of_our_keys(door: Door, pair: Any) -> None:
    assert door.prove(door.good(encrypt_for=pair)).name_id == "alice"


# --- moved about -------------------------------------------------------------------------------------------


def before(root: Any) -> None:
    root.insert(list(root).index(assertion_of(root)), evil(root))


def behind(root: Any) -> None:
    root.append(evil(root))


def around(root: Any) -> None:
    """The evil one holds the good one."""
    other, own = evil(root), assertion_of(root)
    root.replace(own, other)
    other.append(own)


def inside(root: Any) -> None:
    assertion_of(root).append(evil(root))


def in_its_signature(root: Any) -> None:
    own = assertion_of(root)
    holder = etree.SubElement(own.find("s:Signature", NAMES), f"{{{S}}}Object")
    other = evil(root)
    root.replace(own, other)
    other.insert(1, own.find("s:Signature", NAMES))
    holder.append(own)


def in_extensions(root: Any) -> None:
    holder = etree.Element(f"{{{P}}}Extensions")
    own, other = assertion_of(root), evil(root)
    root.replace(own, other)
    holder.append(own)
    root.insert(1, holder)


def in_an_object(root: Any) -> None:
    own, other = assertion_of(root), evil(root)
    signature = own.find("s:Signature", NAMES)
    root.replace(own, other)
    other.insert(1, signature)
    etree.SubElement(signature, f"{{{S}}}Object").append(own)


def same_id(root: Any) -> None:
    other = evil(root)
    other.set("ID", assertion_of(root).get("ID"))
    root.append(other)


@pytest.mark.parametrize(
    "move", [before, behind, around, inside, in_its_signature, in_extensions, in_an_object, same_id],
    ids=[f"xsw{n}" for n in range(1, 9)],
)  # fmt: skip
@pytest.mark.parametrize("when", ["between", "after"])
def test_s_saml_01_to_08_wrapped(door: Door, move: Change, when: str) -> None:
    """Also where the wrapping itself is signed by the provider's own response signature."""
    door.refuses(door.good(**{when: move}))


def test_s_saml_01_a_response_in_a_response(door: Door) -> None:
    own = etree.fromstring(door.good())
    outer = copy.deepcopy(own)
    outer.set("ID", "_outer")
    assertion_of(outer).find("a:Subject/a:NameID", NAMES).text = "admin"
    extensions = etree.Element(f"{{{P}}}Extensions")
    extensions.append(own)
    outer.insert(1, extensions)
    door.refuses(etree.tostring(outer))


# --- signatures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"signs_response": False, "signs_assertion": False},
        {"signs_response": False},
        {"signs_assertion": False},
        {"pair": STRANGER},
        {"pair": OURS},
    ],
    ids=["unsigned", "assertion only", "response only", "a stranger's", "our own"],
)
def test_s_saml_09_not_signed_as_it_must_be(door: Door, said: dict[str, Any]) -> None:
    door.refuses(door.good(**said))


def test_s_saml_09_signatures_taken_off(door: Door) -> None:
    def strip(root: Any) -> None:
        for one in list(root.iter(SIGNATURE)):
            one.getparent().remove(one)

    door.refuses(door.good(after=strip))


def test_s_saml_09_the_attackers_certificate_in_the_key_info(door: Door) -> None:
    def attach(root: Any) -> None:
        for one in root.iter(SIGNATURE):
            data = etree.SubElement(etree.SubElement(one, f"{{{S}}}KeyInfo"), f"{{{S}}}X509Data")
            certificate = "".join(STRANGER.certificate.splitlines()[1:-1])
            etree.SubElement(data, f"{{{S}}}X509Certificate").text = certificate

    door.refuses(door.good(pair=STRANGER, after=attach))


@pytest.mark.parametrize(
    "path",
    ["a:Assertion/a:Subject/a:NameID", "a:Assertion/a:AttributeStatement/a:Attribute/a:AttributeValue",
     "a:Assertion/a:Issuer", "a:Issuer"],
)  # fmt: skip
def test_s_saml_09_one_word_changed_afterwards(door: Door, path: str) -> None:
    door.refuses(door.good(after=set_text(path, "admin")))


def test_s_saml_09_one_word_changed_between_the_two_signatures(door: Door) -> None:
    """The response is signed by the provider, the assertion is not what it signed."""
    name = "a:Assertion/a:Subject/a:NameID"
    door.refuses(door.good(between=set_text(name, "admin")), "ignature")


# --- what parsers disagree on ------------------------------------------------------------------------------


@pytest.mark.parametrize("evil_part", [b"admin<!-- -->.evil", b"admin<?x y?>.evil"])
def test_s_saml_10_comments_and_instructions_in_a_name(door: Door, evil_part: bytes) -> None:
    door.refuses(door.good().replace(b">alice<", b">" + evil_part + b"<"), "a comment or an instruction")


def test_s_saml_10_a_name_that_was_signed_with_a_comment(door: Door) -> None:
    def comment(root: Any) -> None:
        name = root.find("a:Assertion/a:Subject/a:NameID", NAMES)
        name.text = "admin"
        name.append(etree.Comment("x"))
        name[0].tail = ".evil"

    door.refuses(door.good(before=comment), "a comment or an instruction")


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"<!DOCTYPE x>", "a document type"),
        (b'<!DOCTYPE x [<!ENTITY e "admin">]>', "a document type"),
        (b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">', "a document type"),
    ],
)
def test_s_saml_11_document_types_and_entities(door: Door, head: bytes, why: str) -> None:
    door.refuses(head + door.good(), why)


@pytest.mark.parametrize("name", ["Id", "id", "{http://www.w3.org/XML/1998/namespace}id", "{urn:x}ID"])
def test_s_saml_11_ids_twice_or_of_another_namespace(door: Door, name: str) -> None:
    def add(root: Any) -> None:
        root.find("p:Status", NAMES).set(name, assertion_of(root).get("ID"))

    door.refuses(door.good(after=add), "id")


def test_s_saml_11_an_element_of_another_namespace_with_the_same_name(door: Door) -> None:
    door.refuses(door.good().replace(b"urn:oasis:names:tc:SAML:2.0:assertion", b"urn:evil", 1))


def test_s_saml_11_attributes_twice(door: Door) -> None:
    door.refuses(door.good().replace(b" Destination=", b' Destination="x" Destination=', 1), "no XML")


# --- canonicalisation and algorithms -----------------------------------------------------------------------


def algorithm(path: str, value: str) -> Change:
    def change(root: Any) -> None:
        for one in root.iterfind(f".//{path}", NAMES):
            one.set("Algorithm", value)

    return change


def add_transform(root: Any) -> None:
    for transforms in list(root.iter(f"{{{S}}}Transforms")):
        etree.SubElement(transforms, f"{{{S}}}Transform", Algorithm=XSLT)


def no_digest(root: Any) -> None:
    for value in root.iterfind(".//s:DigestValue", NAMES):
        value.text = ""


@pytest.mark.parametrize(
    "change",
    [
        no_digest,
        add_transform,
        algorithm("s:CanonicalizationMethod", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"),
        algorithm("s:CanonicalizationMethod", "http://www.w3.org/2001/10/xml-exc-c14n#WithComments"),
        algorithm("s:Transform", "http://www.w3.org/TR/1999/REC-xpath-19991116"),
    ],
    ids=["empty digest", "XSLT", "inclusive", "with comments", "XPath"],
)
def test_s_saml_12_canonicalisation(door: Door, change: Change) -> None:
    door.refuses(door.good(after=change))


def test_s_saml_12_a_reference_to_the_whole_document(door: Door) -> None:
    def refer(root: Any) -> None:
        for one in root.iter(f"{{{S}}}Reference"):
            one.set("URI", "")

    door.refuses(door.good(after=refer), "something else than its parent")


def test_s_saml_19_sha_1(door: Door) -> None:
    door.refuses(door.good(method=xmlsec.constants.TransformRsaSha1), "a signature method")
    door.refuses(door.good(digest=xmlsec.constants.TransformSha1), "a digest")


def test_s_saml_19_a_signature_with_the_public_key_as_secret(door: Door) -> None:
    hmac = "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"
    door.refuses(door.good(after=algorithm("s:SignatureMethod", hmac)), "a signature method")


def test_s_saml_19_rsa_1_5(door: Door) -> None:
    def wrap(root: Any) -> None:
        encrypt(root, OURS, transport=xmlsec.constants.TransformRsaPkcs1)

    door.refuses(door.good(between=wrap), "an encryption")


# --- for whom, to whom, when -------------------------------------------------------------------------------


@pytest.mark.parametrize("audience", ["https://other.example.org", "https://gateway.example.org", ""])
def test_s_saml_15_for_somebody_else(door: Door, audience: str) -> None:
    path = f"{CONDITIONS}/a:AudienceRestriction/a:Audience"
    door.refuses(door.good(before=set_text(path, audience)))


def test_s_saml_15_for_several_and_for_nobody(door: Door) -> None:
    def more(root: Any) -> None:
        holder = root.find(f"{CONDITIONS}/a:AudienceRestriction", NAMES)
        etree.SubElement(holder, f"{{{A}}}Audience").text = "https://other.example.org"

    def none(root: Any) -> None:
        holder = root.find(CONDITIONS, NAMES)
        holder.remove(holder[0])

    door.refuses(door.good(before=more), "not for us alone")
    door.refuses(door.good(before=none), "AudienceRestriction")


@pytest.mark.parametrize(
    "address",
    ["https://other.example.org/saml/acs", "https://gateway.example.org/saml/acs/more",
     "https://gateway.example.org/saml/ac", "https://evil.org/?https://gateway.example.org/saml/acs",
     "", None],
)  # fmt: skip
def test_s_saml_16_brought_to_the_wrong_address(door: Door, address: str | None) -> None:
    door.refuses(door.good(before=set_name(".", "Destination", address)))
    door.refuses(door.good(before=set_name(CONFIRMED, "Recipient", address)))


def when(delta: timedelta) -> str:
    return written(datetime.now(UTC) + delta)


@pytest.mark.parametrize(
    ("path", "name", "at"),
    [
        (CONDITIONS, "NotOnOrAfter", -timedelta(minutes=2)),
        (CONDITIONS, "NotBefore", timedelta(minutes=2)),
        (CONFIRMED, "NotOnOrAfter", -timedelta(minutes=2)),
        (CONFIRMED, "NotBefore", timedelta(minutes=2)),
        (CONFIRMED, "NotOnOrAfter", None),
        ("a:Assertion/a:AuthnStatement", "SessionNotOnOrAfter", -timedelta(minutes=2)),
    ],
)  # fmt: skip
def test_s_saml_17_too_late_too_early_or_for_ever(
    door: Door, path: str, name: str, at: timedelta | None
) -> None:
    value = None if at is None else when(at)
    door.refuses(door.good(before=set_name(path, name, value)))


def test_s_saml_17_clocks_may_differ_a_little(door: Door) -> None:
    def early(root: Any) -> None:
        set_name(CONDITIONS, "NotBefore", when(timedelta(seconds=40)))(root)

    assert door.prove(door.good(before=early)).name_id == "alice"


@pytest.mark.parametrize("issuer", ["https://other.example.org/idp", "https://idp.example.org/idp/", ""])
def test_s_saml_18_another_issuer(door: Door, issuer: str) -> None:
    door.refuses(door.good(before=set_text("a:Issuer", issuer)))
    door.refuses(door.good(before=set_text("a:Assertion/a:Issuer", issuer)))


def test_s_saml_18_two_issuers_two_assertions(door: Door) -> None:
    def two(root: Any) -> None:
        root.insert(1, copy.deepcopy(root[0]))

    def twice(root: Any) -> None:
        other = copy.deepcopy(assertion_of(root))
        other.set("ID", "_b")
        root.append(other)
        sign(other, THEIRS)

    door.refuses(door.good(before=two))
    door.refuses(door.good(before=twice), "exactly one assertion")


def test_s_saml_18_encrypted_for_somebody_else(door: Door) -> None:
    door.refuses(door.good(encrypt_for=STRANGER))


def test_s_saml_18_nothing_is_decrypted_that_the_provider_did_not_send(door: Door) -> None:
    """Else answers, or the time they take, would help to decrypt what somebody has caught."""

    def change(root: Any) -> None:
        value = root.findall(".//e:CipherValue", NAMES)[-1]
        value.text = "AAAA" + value.text[4:]

    for said in ({"after": change}, {"pair": STRANGER}, {"signs_response": False}):
        document = door.good(encrypt_for=OURS, **said)
        with pytest.raises(Refused) as refused:
            door.sp.prove(door.known, document, REQUEST, door.idp.now)
        assert "ignature" in str(refused.value)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/key", "file:///etc/passwd", ""])
@pytest.mark.parametrize("kind", [f"{{{S}}}RetrievalMethod", f"{{{E}}}CipherReference"])
def test_s_saml_18_parts_that_lie_elsewhere(door: Door, kind: str, uri: str) -> None:
    def refer(root: Any) -> None:
        etree.SubElement(root.find("p:Status", NAMES), kind, URI=uri)

    door.refuses(door.good(before=refer), "a part that lies elsewhere")


@pytest.mark.parametrize("kind", ["EncryptedAttribute", "EncryptedID"])
def test_s_saml_18_parts_that_are_encrypted(door: Door, kind: str) -> None:
    def hide(root: Any) -> None:
        etree.SubElement(assertion_of(root), f"{{{A}}}{kind}").append(etree.Element(f"{{{E}}}EncryptedData"))

    door.refuses(door.good(after=hide), "an encrypted attribute or name")


def test_s_saml_14_the_answer_to_another_request(door: Door) -> None:
    door.refuses(door.idp.response(door.sp, "_other"))
    door.refuses(door.idp.response(door.sp, None))
    door.refuses(door.good(before=set_name(CONFIRMED, "InResponseTo", "_other")))
    assert door.prove(door.idp.response(door.sp, None), None).name_id == "alice"
    door.refuses(door.good(), request=None)


@pytest.mark.parametrize("status", ["Requester", "Responder", "AuthnFailed"])
def test_a_refusal_of_the_provider(door: Door, status: str) -> None:
    value = f"urn:oasis:names:tc:SAML:2.0:status:{status}"
    door.refuses(door.good(before=set_name("p:Status/p:StatusCode", "Value", value)))


# --- sizes -------------------------------------------------------------------------------------------------


def test_s_saml_20_too_large_before_anything_is_read() -> None:
    with pytest.raises(Refused, match="too large"):
        decoded("A" * (MOST_ENCODED + 1))
    with pytest.raises(Refused, match="not base64"):
        decoded("<xml>")


def test_s_saml_20_what_grows_when_it_is_inflated() -> None:
    bomb = deflated(b" " * (50 * 1024 * 1024))
    assert len(bomb) < MOST_ENCODED
    with pytest.raises(Refused, match="too large"):
        inflated(bomb)
    with pytest.raises(Refused, match="not deflated"):
        inflated("////")
    assert len(inflated(deflated(b" " * (MOST_BYTES - 1)))) == MOST_BYTES - 1
    with pytest.raises(Refused, match="cut off"):
        inflated(base64.b64encode(base64.b64decode(deflated(b"<a/>" * 100))[:-3]).decode())


def test_s_saml_20_laughs_and_depths() -> None:
    laughs = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10 if n else b"ha") for n in range(10))
    deep = b"<x>" * 300 + b"</x>" * 300
    wide = b'<p:Response xmlns:p="%s">' % P.encode() + b"<p:x/>" * 6000 + b"</p:Response>"
    for document in (b"<!DOCTYPE x [" + laughs + b"]><x>&l9;</x>", deep, wide, b"<x", b"", b"\x00"):
        with pytest.raises(Refused):
            guarded_response(document)


def test_times_are_read_strictly() -> None:
    assert moment("2026-11-20T12:00:00.123Z") == datetime(2026, 11, 20, 12, tzinfo=UTC)
    assert moment(None) is None
    for wrong in ("2026-11-20 12:00:00Z", "2026-13-20T12:00:00Z", "tomorrow", "2026-11-20T12:00:00+02:00"):
        with pytest.raises(Refused):
            moment(wrong)


# --- our own guard, asked alone: the library behind it refuses much of this as well -------------------------


def its_word(document: bytes) -> str:
    with pytest.raises(Refused) as refused:
        guarded_response(document)
    return str(refused.value)


def at(path: str, change: Change) -> Change:
    """The change of what is found there."""
    return lambda root: change(root if path == "." else root.find(path, NAMES))


def moved_into(holder: str) -> Change:
    def change(root: Any) -> None:
        element = etree.SubElement(root, holder)
        element.append(assertion_of(root))

    return change


def doubled(element: Any) -> None:
    other = copy.deepcopy(element)
    element.getparent().append(other)


def attribute(name: str, value: str) -> Change:
    return lambda element: element.set(name, value)


def said(text: str) -> Change:
    def change(element: Any) -> None:
        element.text = text

    return change


SIGNED_INFO = "s:Signature/s:SignedInfo"
REFERENCE = f"{SIGNED_INFO}/s:Reference"
STATEMENT = "a:Assertion/a:AuthnStatement"
LONG_AGO = "2020-01-01T00:00:00Z"
INCLUSIVE = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
OURS_ALONE: dict[str, tuple[Change, str]] = {
    "no assertion in its place": (moved_into(f"{{{P}}}Extensions"), "not exactly one assertion"),
    "a signature elsewhere": (
        lambda root: root.find("p:Status", NAMES).append(_elsewhere(root)), "a signature out of its place",
    ),
    "two signatures": (at("a:Assertion/s:Signature", doubled), "one id twice|two signatures in one place"),
    "over another": (at(REFERENCE, attribute("URI", "#_other")), "something else than its parent"),
    "over all": (at(REFERENCE, attribute("URI", "")), "something else than its parent"),
    "of no id": (lambda root: root.attrib.pop("ID"), "something else than its parent"),
    "of no id, and named so": (
        lambda root: (root.attrib.pop("ID"), root.find(REFERENCE, NAMES).set("URI", "#None")),
        "something else than its parent",
    ),
    "inclusive": (
        at(f"{SIGNED_INFO}/s:CanonicalizationMethod", attribute("Algorithm", INCLUSIVE)), "not exclusive",
    ),
    "method": (at(f"{SIGNED_INFO}/s:SignatureMethod", attribute("Algorithm", "x")), "a signature method"),
    "digest": (at(f"{REFERENCE}/s:DigestMethod", attribute("Algorithm", "x")), "a digest that is broken"),
    "empty digest": (at(f"{REFERENCE}/s:DigestValue", said(" ")), "an empty digest or signature"),
    "empty signature": (at("s:Signature/s:SignatureValue", said("")), "an empty digest or signature"),
    "transforms": (
        at(f"{REFERENCE}/s:Transforms/s:Transform", attribute("Algorithm", XSLT)), "transforms that change",
    ),
    "a parameter": (
        at(f"{SIGNED_INFO}/s:SignatureMethod", lambda it: etree.SubElement(it, f"{{{S}}}HMACOutputLength")),
        "parameters of an algorithm",
    ),
    "an object": (
        lambda root: etree.SubElement(root.find("s:Signature", NAMES), f"{{{S}}}Object"), "an object in",
    ),
    "one id twice": (
        lambda root: [root.find(path, NAMES).set("ID", "_twice") for path in ("p:Status", "a:Issuer")],
        "one id twice",
    ),
    "a foreign id": (at("p:Status", attribute(f"{{{E}}}Id", "x")), "an id of another namespace"),
    "too many": (
        lambda root: [etree.SubElement(root, f"{{{P}}}x") for _ in range(6000)], "the document is too large",
    ),
    "too deep": (lambda root: deeper(root, 200), "the document is too large"),
    "a comment": (lambda root: root.append(etree.Comment("x")), "a comment or an instruction"),
    "another root": (lambda root: setattr(root, "tag", f"{{{P}}}LogoutRequest"), "this is no Response"),
    "another namespace": (lambda root: setattr(root, "tag", f"{{{A}}}Response"), "this is no Response"),
}  # fmt: skip


def deeper(element: Any, levels: int) -> None:
    for _ in range(levels):
        element = etree.SubElement(element, f"{{{P}}}x")


def _elsewhere(root: Any) -> Any:
    """A good signature of a part that needs none."""
    part = etree.Element(f"{{{P}}}StatusDetail", ID="_detail")
    root.find("p:Status", NAMES).append(part)
    sign(part, THEIRS, at=0)
    return etree.Element(f"{{{P}}}StatusMessage")


@pytest.mark.parametrize("name", OURS_ALONE)
def test_s_saml_09_11_12_our_own_guard_says_why(door: Door, name: str) -> None:
    change, why = OURS_ALONE[name]
    word = its_word(door.good(after=change))
    assert any(one in word for one in why.split("|")), word


def test_s_saml_11_a_document_type_is_refused_whatever_it_declares(door: Door) -> None:
    for declared in (b"<!DOCTYPE x>", b"<!DOCTYPE x []>", b'<!DOCTYPE x SYSTEM "file:///etc/passwd">'):
        assert its_word(declared + door.good()) == "a document type is declared"


def test_s_saml_20_a_document_has_a_size(door: Door) -> None:
    room = MOST_BYTES - len(door.good())
    assert its_word(door.good(after=lambda root: setattr(root, "tail", None)) + b" " * room * 2) == (
        "the document is too large"
    )


@pytest.mark.parametrize(("signed", "before", "why"), [
    ({}, None, ""),
    ({"signs_assertion": False}, None, "Signature"),
    ({"signs_response": False}, None, "Signature"),
    ({}, set_name(".", "InResponseTo", "_other"), "InResponseTo"),
    ({}, set_name(".", "Destination", "https://other.example.org"), "Destination"),
    ({}, set_name("p:Status/p:StatusCode", "Value", "urn:example:failed"), "status"),
    ({}, set_name(STATEMENT, "SessionNotOnOrAfter", LONG_AGO), "session"),
    ({}, set_name("a:Assertion/a:Subject/a:SubjectConfirmation", "Method", "x"), "the confirmation's method"),
    ({}, set_name(CONFIRMED, "InResponseTo", "_other"), "the confirmation's InResponseTo"),
    ({}, set_name(CONFIRMED, "Recipient", "x"), "Recipient"),
    ({}, set_name(CONFIRMED, "NotOnOrAfter", LONG_AGO), "not valid any more"),
    ({}, set_name(CONDITIONS, "NotOnOrAfter", LONG_AGO), "not valid any more"),
    ({}, set_text("a:Issuer", "other"), "the response's Issuer"),
    ({}, set_text("a:Assertion/a:Issuer", "other"), "the assertion's Issuer"),
])  # fmt: skip
def test_s_saml_09_14_to_18_our_own_reading_says_why(
    door: Door, signed: dict[str, Any], before: Change | None, why: str
) -> None:
    expected = Expected(
        issuer=door.idp.entity_id, audience=door.sp.entity_id, address=door.sp.address, request=REQUEST,
        now=door.idp.now,
    )  # fmt: skip
    document = door.good(before=before, **signed)
    if not why:
        assert proved(document, expected).name_id == "alice"
        return
    with pytest.raises(Refused, match=why):
        proved(document, expected)


@pytest.mark.parametrize(("change", "why"), [
    (lambda root: None, ""),
    (set_text("a:Issuer", "other"), "the sign-out's Issuer"),
    (set_name(".", "Destination", "https://other.example.org"), "the sign-out's Destination"),
    (set_name(".", "IssueInstant", None), "too old"),
    (set_name(".", "IssueInstant", LONG_AGO), "too old"),
    (set_name(".", "NotOnOrAfter", LONG_AGO), "too old"),
])  # fmt: skip
def test_s_saml_24_our_own_reading_of_a_sign_out_says_why(door: Door, change: Change, why: str) -> None:
    idp, address = door.idp, "https://gateway.example.org/saml/sls"
    query = idp.sign_out(address, "alice", "_s1", signs=False)
    root = guarded(inflated(unquote(query.split("&")[0].partition("=")[2])), "LogoutRequest")
    change(root)
    if not why:
        assert sign_out(root, idp.entity_id, address, idp.now)[1:] == ("alice", ("_s1",))
        return
    with pytest.raises(Refused, match=why):
        sign_out(root, idp.entity_id, address, idp.now)
