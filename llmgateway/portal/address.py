"""The address that a request came from: the first one that no trusted proxy vouches for."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.requests import Request

Network = IPv4Network | IPv6Network
UNKNOWN = "unknown"


class Addresses:
    """`trusted` are the proxies whose X-Forwarded-For counts."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted

    def of(self, request: Request) -> str:
        peer = request.client.host if request.client else UNKNOWN
        address = str(_parsed(peer) or peer)  # a socket for both kinds of IP tells the short ones as long
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        while forwarded and self._is_trusted(address):
            before = _parsed(forwarded.pop().strip())
            if before is None:
                return address
            address = str(before)
        return address

    def _is_trusted(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
