"""Which addresses a target, or a subscription, may have."""

from ipaddress import ip_network

import pytest

from services.alerts.channels.network import allowed

OFFICE = (ip_network("10.20.0.0/16"), ip_network("fd00:20::/32"))
PUBLIC = "8.8.8.8 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1"

# This machine; private networks; carrier-grade NAT; metadata services of clouds; documentation,
# multicast; the same mapped, translated and tunnelled (NAT64, 6to4, Teredo); what is no address.
REFUSED = """
    0.0.0.0 127.0.0.1 10.20.0.1 172.16.0.1 192.168.1.1 100.64.0.1 100.100.100.200 169.254.169.254
    192.0.0.192 192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:0.0.0.0 ::ffff:169.254.169.254 64:ff9b::127.0.0.1
    64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1::1 2001:0:1::1 2001:db8::1 fe80::1 fe80::1%eth0
    fec0::1 fc00::1 fd00:ec2::254 ff02::1 ff0e::1 localhost 127.1 2130706433 0x7f.0.0.1
"""
OFFICES = "10.20.0.1 ::ffff:10.20.0.1 fd00:20::1"
OTHERS = "10.21.0.1 127.0.0.1 ::ffff:10.21.0.1 fd00:21::1"


@pytest.mark.parametrize("address", [*PUBLIC.split(), *REFUSED.split(), ""])
def test_only_a_public_address_is_allowed(address: str) -> None:
    assert allowed(address, ()) == (address in PUBLIC.split())


@pytest.mark.parametrize("address", [*OFFICES.split(), *OTHERS.split()])
def test_of_private_networks_only_a_listed_one_is_allowed(address: str) -> None:
    assert allowed(address, OFFICE) == (address in OFFICES.split())
