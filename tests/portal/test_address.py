from ipaddress import ip_network

import pytest

from llmgateway.portal.address import Addresses
from tests.portal.asking import request_of

BEHIND = Addresses([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("client", "forwarded", "found"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.1"], "198.51.100.7"),  # not a proxy of ours: it may write what it likes
        ("10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", ["9.9.9.9, 203.0.113.1, 10.0.0.2"], "203.0.113.1"),
        ("10.0.0.1", ["9.9.9.9", "203.0.113.1"], "203.0.113.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["not an address"], "10.0.0.1"),
        ("10.0.0.1", ["::ffff:203.0.113.1"], "203.0.113.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
    ],
)
def test_the_first_address_that_no_proxy_of_ours_vouches_for(
    client: str, forwarded: list[str], found: str
) -> None:
    headers = [("x-forwarded-for", value) for value in forwarded]
    assert BEHIND.of(request_of(*headers, address=client)) == found
