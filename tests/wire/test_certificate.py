import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from llmgateway.wire.certificate import NotACertificate, ends_at

KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.example")])
BEGAN = datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)


def certificate(end: datetime.datetime) -> str:
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), x509.random_serial_number(), BEGAN, end)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("year", [1999, 2026, 2049, 2050, 2120])
def test_the_end_is_read_in_both_forms_of_a_time(year: int) -> None:
    end = datetime.datetime(year, 11, 21, 7, 30, 5, tzinfo=datetime.UTC)
    assert ends_at(certificate(end)) == end


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "MAA="])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(NotACertificate):
        ends_at(text)


def test_a_certificate_that_is_cut_off_is_refused() -> None:
    lines = certificate(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)).splitlines()
    for kept in range(1, len(lines) - 1):
        with pytest.raises(NotACertificate):
            ends_at("\n".join(lines[:kept]))
