"""Whom the gateway calls. A name may resolve to anything, and to something else the next time, so it is the
address of a connection that is looked at."""

import ssl
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

Network = IPv4Network | IPv6Network

# Beside link-local addresses, where clouds answer with the machine's own credentials, what else does so.
METADATA = (ip_network("fd00:ec2::254/128"), ip_network("100.100.100.200/32"), ip_network("192.0.0.192/32"))


class Peers:
    """`networks`: the only ones that are called; none: all. Where clouds tell credentials is never called."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)

    def may_be_called(self, address: str) -> bool:
        found = ip_address(address.partition("%")[0])
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        if found.is_link_local or found.is_multicast or any(found in network for network in METADATA):
            return False
        return not self._networks or any(found in network for network in self._networks)


ANYWHERE = Peers()


class Trust(Struct, frozen=True):
    """Which addresses are called, and what their certificates are checked with."""

    peers: Peers = ANYWHERE
    tls: ssl.SSLContext | None = None


ANYBODY = Trust()
