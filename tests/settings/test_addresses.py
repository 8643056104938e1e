from ipaddress import ip_network

import pytest

from llmgateway.domain.scalars import Filled, Wrong
from llmgateway.settings.addresses import host, mongo_database, mongo_url, network, redis_url


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("mongodb://localhost", "gateway"),
        ("mongodb://localhost/", "gateway"),
        ("mongodb://h:27017/ledger", "ledger"),
        ("mongodb://u:p%40w@a:1,b:2,c/gw?replicaSet=rs0", "gw"),
        ("mongodb+srv://u:p@cluster.example/?w=majority", "gateway"),
    ],
)
def test_mongo(url: str, database: str) -> None:
    assert mongo_url(Filled(url)) == url
    assert mongo_database(url) == database


@pytest.mark.parametrize(
    "url",
    [
        "mongo://h",
        "mongodb://",
        "mongodb:///gw",
        "localhost:27017",
        "mongodb://h/a/b",
        "mongodb://h/a$b",
        "mongodb://u:canary@x@h/gw",
        "http://h",
    ],
)
def test_wrong_mongo(url: str) -> None:
    with pytest.raises(Wrong) as caught:
        mongo_url(Filled(url))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:pw@h:6379/0",
        "rediss://u:pw@h/3",
        "unix:///run/redis.sock",
        "redis://[::1]:6379/",
    ],
)
def test_redis(url: str) -> None:
    assert redis_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://",
        "redis:///0",
        "redis://h:port/0",
        "redis://h/name",
        "unix://",
        "redis://u:canary@h:99999",
        "h:6379",
        "redis://[::1",
    ],
)
def test_wrong_redis(url: str) -> None:
    with pytest.raises(Wrong) as caught:
        redis_url(url)
    assert "canary" not in str(caught.value)


def test_hosts_and_networks() -> None:
    assert [host(h) for h in ("127.0.0.1", "::1", "0.0.0.0", "::", "localhost")][3] == "::"
    assert network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert network("10.0.0.7") == ip_network("10.0.0.7/32")
    assert network("FD00::/8") == ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("10.1.2.3/8", "the range is 10.0.0.0/8"),
        ("*", "must hold addresses"),
        ("proxy.internal", "must hold addresses"),
        ("0.0.0.0/0", "every address"),
        ("::/0", "every address"),
        ("10.0.0.0/33", "must hold addresses"),
    ],
)
def test_wrong_networks(written: str, complaint: str) -> None:
    with pytest.raises(Wrong, match=complaint):
        network(written)


def test_wrong_hosts() -> None:
    for written in ("http://x", "a b", "", "[::1]", "x/y"):
        with pytest.raises(Wrong):
            host(written)
