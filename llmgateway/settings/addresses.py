"""Readers of addresses: stores, proxies, and where the gateway listens."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from llmgateway.domain.scalars import HOST, Wrong, described, text

Network = IPv4Network | IPv6Network

MONGO = re.compile(r"mongodb(?:\+srv)?://(?:[^@/?#\s]*@)?([^@/?#\s]+)(?:/([^?#\s]*))?(?:\?\S*)?")
MONGO_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
MONGO_DEFAULT = "gateway"


def mongo_url(value: object) -> str:
    written = text(value)
    parts = MONGO.fullmatch(written)
    if parts is None:
        raise Wrong("must look like mongodb://user:password@host:27017/gateway (or mongodb+srv://); "
                    "special characters in the password are percent-encoded")  # fmt: skip
    if parts[2] and not MONGO_NAME.fullmatch(parts[2]):
        raise Wrong("must name one database after the host, of letters, digits, _ and -")
    return written


def mongo_database(url: str) -> str:
    """The database that a URL names, else the default's name."""
    parts = MONGO.fullmatch(url)
    return (parts[2] if parts else None) or MONGO_DEFAULT


def redis_url(value: object) -> str:
    written = text(value)
    try:
        parts = urlsplit(written)
        is_located = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
    except ValueError:
        is_located = False
        parts = urlsplit("")
    if parts.scheme not in ("redis", "rediss", "unix") or not is_located:
        raise Wrong("must look like redis://user:password@host:6379/0 (or rediss://, or unix:///path)")
    if parts.scheme != "unix" and not re.fullmatch(r"(/[0-9]{0,4})?", parts.path):
        raise Wrong("must end in the number of a database, such as /0, or in nothing")
    return written


def host(value: object) -> str:
    written = text(value)
    if not HOST.fullmatch(written):
        raise Wrong(f"must be an address or a host name to listen on, not {described(value)}")
    return written


def network(value: object) -> Network:
    """One address or a range of them."""
    written = text(value)
    try:
        found = ip_network(written, strict=False)
    except ValueError:
        raise Wrong(f"must hold addresses or ranges such as 10.0.0.0/8, not {described(value)}") from None
    if found.prefixlen == 0:
        raise Wrong(f"must not trust every address there is ({written})")
    if "/" in written and str(found.network_address) != written.partition("/")[0].lower():
        raise Wrong(f"names an address inside a range: {described(value)}; the range is {found}")
    return found
