from ipaddress import ip_network

import pytest

from llmgateway.upstream.peers import Peers


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "fe80::1", "fe80::1%eth0",
        "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "224.0.0.1", "ff02::1",
    ],
)  # fmt: skip
def test_s_prx_12_where_clouds_tell_credentials_nobody_calls(address: str) -> None:
    assert not Peers().may_be_called(address)
    assert not Peers([ip_network("169.254.0.0/16"), ip_network("fe80::/10")]).may_be_called(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.7", "fd12::1", "8.8.8.8", "100.100.100.201"])
def test_else_all_are_called(address: str) -> None:
    assert Peers().may_be_called(address)


def test_networks_are_the_only_ones() -> None:
    peers = Peers([ip_network("10.0.0.0/8"), ip_network("fd12::/16")])
    assert peers.may_be_called("10.1.2.3")
    assert peers.may_be_called("::ffff:10.1.2.3")
    assert peers.may_be_called("fd12::5")
    assert not peers.may_be_called("11.0.0.1")
    assert not peers.may_be_called("127.0.0.1")
    assert not peers.may_be_called("fd13::1")
