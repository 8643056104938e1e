import time

from llmgateway.app.certificates import ends
from llmgateway.domain.saml import IdentityProvider, KeyPair, Saml
from llmgateway.domain.secret import Secret
from tests.lab.identity import new_pair

OURS, NEXT, THEIRS = new_pair("sp"), new_pair("next"), new_pair("idp")


def provider(id: str, certificate: str | None) -> IdentityProvider:
    return IdentityProvider(id=id, name=id, metadata="idp.xml", metadata_certificate=certificate)


def test_all_certificates_of_the_file_are_told() -> None:
    saml = Saml(pairs=(OURS, NEXT), providers=(provider("uni", THEIRS.certificate), provider("file", None)))
    found = dict(ends(saml))
    assert set(found) == {"saml-1", "saml-2", "metadata-uni"}
    assert all(end > time.time() for end in found.values())


def test_what_cannot_be_read_is_left_out() -> None:
    broken = KeyPair("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", Secret("k"))
    assert list(ends(Saml(pairs=(broken,), providers=(provider("uni", None),)))) == []


def test_without_saml_there_are_none() -> None:
    assert list(ends(None)) == []
