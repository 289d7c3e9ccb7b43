import re
from pathlib import Path

import pytest

from services.gateway.door.clients import TrustedProxies, parse_networks

PROXIES = parse_networks("10.0.0.0/8, 127.0.0.1/32, 2001:db8:ffff::/48")


CLIENTS = Path(__file__).with_name("clients.txt").read_text().splitlines()[2:]


@pytest.mark.parametrize("row", CLIENTS)
def test_the_client_is_the_rightmost_untrusted_address(row: str) -> None:
    peer, said, expected = re.split(r" {2,}", row)
    forwarded = [] if said == "-" else said.split(" | ")
    proxies = TrustedProxies(PROXIES)
    address, source = proxies.client_ip(None if peer == "-" else peer, forwarded)
    assert address == expected
    alone, _ = TrustedProxies(()).client_ip(None if peer == "-" else peer, [])
    assert (source == "peer") == (address == alone)


def test_an_empty_address_is_none() -> None:
    assert TrustedProxies(PROXIES).client_ip("10.0.0.1", [""])[0] == "10.0.0.1"
    assert TrustedProxies(PROXIES).client_ip("", [])[0] == "unknown"


@pytest.mark.parametrize("text", ["10.0.0.0/33", "localhost", "10.0.0.1/8"])
def test_a_malformed_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_networks(text)
