"""When an X.509 certificate ends: as much of DER as it takes to get there."""

import binascii
from collections.abc import Iterator
from datetime import UTC, datetime

INTEGER, SEQUENCE, UTC_TIME, GENERALIZED_TIME, VERSION = 0x02, 0x30, 0x17, 0x18, 0xA0
FORMS = {UTC_TIME: "%y%m%d%H%M%SZ", GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
PIVOT = 1950  # two digits of a year mean 1950 to 2049


class NotACertificate(ValueError):
    """The text is something else, or is damaged."""


def ends_at(pem: str) -> datetime:
    """The last moment at which the certificate of a PEM text is valid."""
    lines = [line for line in pem.strip().splitlines() if "-----" not in line]
    try:
        document = binascii.a2b_base64("".join(lines), strict_mode=True)
        return _end_of(document)
    except (ValueError, IndexError, StopIteration) as error:
        raise NotACertificate(str(error)) from None


def _end_of(document: bytes) -> datetime:
    _, certificate = next(_values(document))
    _, signed = next(_values(certificate))
    fields = [value for value in _values(signed) if value[0] != VERSION]
    (number, _), _algorithm, _issuer, (kind, validity) = fields[:4]
    if (number, kind) != (INTEGER, SEQUENCE):
        raise NotACertificate("it does not begin as a certificate does")
    (_, _), (form, text) = _values(validity)
    if form not in FORMS:
        raise NotACertificate("it says its end in no known form")
    end = datetime.strptime(text.decode("ascii"), FORMS[form]).replace(tzinfo=UTC)
    return end.replace(year=end.year - 100) if form == UTC_TIME and end.year >= PIVOT + 100 else end


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of what stands behind each other."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            wide = size & 0x7F
            size, at = int.from_bytes(data[at : at + wide]), at + wide
        if at + size > len(data):
            raise NotACertificate("it is cut off")
        yield tag, data[at : at + size]
        at += size
