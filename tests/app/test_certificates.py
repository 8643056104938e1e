"""Certificates that end: told of by name, and warned of in time."""

import time
from datetime import timedelta

import pytest

from llmgateway.app.certificates import Certificates, ends
from llmgateway.domain.saml import IdentityProvider, KeyPair, Saml
from llmgateway.domain.secret import Secret
from tests.doubles import SetClock
from tests.lab.identity import new_pair

OURS, NEXT, THEIRS = new_pair("sp"), new_pair("next"), new_pair("idp")
DAY = timedelta(days=1)


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


def test_ours_and_the_providers_are_warned_of_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    clock = SetClock()
    ours = Saml(pairs=(new_pair("sp", until=clock.at + 20 * DAY),), providers=())
    certificates = Certificates(lambda: ours, clock)
    theirs = {"provider-uni": (clock.at + 31 * DAY).timestamp()}
    certificates.also(lambda: theirs.items())
    assert set(dict(certificates.ends())) == {"saml-1", "provider-uni"}

    def warned() -> list[tuple[str, int]]:
        caplog.clear()
        for _ in range(3):
            certificates.warn()
        fields = [record.__dict__["fields"] for record in caplog.records]
        return [(one["certificate"], one["days"]) for one in fields]

    assert warned() == [("saml-1", 20)]
    assert warned() == []
    clock.move(2 * DAY)
    assert warned() == [("saml-1", 18), ("provider-uni", 29)]
    clock.move(30 * DAY)
    assert warned() == [("saml-1", -12), ("provider-uni", -1)]
