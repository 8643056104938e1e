"""Assertions from files: JSON and SAML, and XML that means harm."""

import base64
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from llmgateway.cli.assertion import LARGEST, Asserted, read_assertion, told
from llmgateway.domain.errors import InvalidRequest

OID = "urn:oid:1.3.6.1.4.1.5923.1.1.1.1"
ATTRIBUTE = f"""
  <saml:Attribute Name="{OID}" FriendlyName="eduPersonAffiliation">
    <saml:AttributeValue>emp<!-- not -->loyee</saml:AttributeValue>
    <saml:AttributeValue>a &amp; b</saml:AttributeValue>
  </saml:Attribute>
  <saml:Attribute Name="id">
    <saml:AttributeValue><saml:NameID>x1</saml:NameID></saml:AttributeValue>
    <saml:AttributeValue> </saml:AttributeValue>
  </saml:Attribute>
  <saml:Attribute Name="y" FriendlyName="id"><saml:AttributeValue>x2</saml:AttributeValue></saml:Attribute>
"""
ASSERTION = f"""<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" ID="a">
<saml:Issuer>https://idp.example.org/</saml:Issuer>
<saml:AttributeStatement>{ATTRIBUTE}</saml:AttributeStatement></saml:Assertion>"""
WHOLE = Asserted("https://idp.example.org/", {
    OID: ("employee", "a & b"), "eduPersonAffiliation": ("employee", "a & b"), "id": ("x1",), "y": ("x2",),
})  # fmt: skip


def response(*inside: str) -> str:
    return (
        '<?xml version="1.0"?><p:Response xmlns:p="urn:oasis:names:tc:SAML:2.0:protocol" '
        'xmlns:s="urn:oasis:names:tc:SAML:2.0:assertion"><s:Issuer>https://proxy/</s:Issuer>'
        f"{''.join(inside)}</p:Response>"
    )


def read(directory: Path, content: str | bytes) -> Asserted:
    path = directory / "assertion"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_assertion(path)


def complaint(directory: Path, content: str | bytes) -> str:
    with pytest.raises(InvalidRequest) as refused:
        read(directory, content)
    return refused.value.message


def test_attributes_as_json(tmp_path: Path) -> None:
    assert read(tmp_path, '{"a": ["1", "2"], "b": "3"}') == Asserted("", {"a": ("1", "2"), "b": ("3",)})
    whole = '\ufeff{"provider": "idp", "subject": "x", "attributes": {"a": []}}'
    assert read(tmp_path, whole) == Asserted("idp", {"a": ()})
    assert "must be attributes with their values" in complaint(tmp_path, '{"a": 1}')
    assert "must be attributes with their values" in complaint(tmp_path, '{"a": ["1"')


def test_a_saml_response_as_it_is_and_as_browsers_send_it(tmp_path: Path) -> None:
    whole = response(ASSERTION)
    encoded = base64.b64encode(whole.encode()).decode()
    lines = encoded[:99] + "\n" + encoded[99:]
    for content in (whole, ASSERTION, encoded, lines, f"SAMLResponse={quote(encoded, safe='')}"):
        assert read(tmp_path, content) == WHOLE
    assert told(WHOLE.attributes) == f"eduPersonAffiliation, id, {OID}, y"


def test_s_saml_10_a_comment_cuts_nothing_off(tmp_path: Path) -> None:
    assert read(tmp_path, ASSERTION).attributes[OID][0] == "employee"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (response(), "exactly one assertion, not 0"),
        (response(ASSERTION, ASSERTION), "exactly one assertion, not 2"),
        (response("<s:EncryptedAssertion/>"), "is encrypted"),
        ("<a><b></a>", "The XML is broken"),
        ("hello", "neither JSON nor the XML"),
        (base64.b64encode(b"hello").decode(), "neither JSON nor the XML"),
        ("", "neither JSON nor the XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]>" + ASSERTION, "declares a document type"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd">' + ASSERTION, "declares a document type"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', "declares a document type"),
        ("<a>" * 101, "more than 100 elements within one another"),
        (" " + "x" * LARGEST, "is larger than"),
    ],
)  # fmt: skip
def test_s_saml_11_what_is_no_assertion_is_refused(tmp_path: Path, content: str, why: str) -> None:
    assert why in complaint(tmp_path, content)


def test_s_saml_20_a_bomb_does_not_go_off(tmp_path: Path) -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    began = time.monotonic()
    assert "declares" in complaint(tmp_path, f'<!DOCTYPE a [<!ENTITY l0 "lol">{levels}]><a>&l11;</a>')
    assert time.monotonic() - began < 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        read_assertion(tmp_path / "nothing")
