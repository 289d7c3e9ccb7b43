import re

import pytest

from services.gateway.door.clients import TrustedProxies, parse_networks

PROXIES = parse_networks("10.0.0.0/8, 127.0.0.1/32, 2001:db8:ffff::/48")


# The peer, each X-Forwarded-For (| between several), and whom they stand for; - is none.
CLIENTS = """
203.0.113.9       -                             203.0.113.9
203.0.113.9       1.1.1.1                       203.0.113.9
10.0.0.1          -                             10.0.0.1
10.0.0.1          1.1.1.1                       1.1.1.1
10.0.0.1          9.9.9.9, 1.1.1.1              1.1.1.1
10.0.0.1          9.9.9.9, 1.1.1.1, 10.2.2.2    1.1.1.1
10.0.0.1          9.9.9.9 | 1.1.1.1 | 10.2.2.2  1.1.1.1
10.0.0.1          10.3.3.3, 10.2.2.2            10.3.3.3
10.0.0.1          1.1.1.1, garbage, 10.2.2.2    10.2.2.2
10.0.0.1          1.1.1.1:4711                  1.1.1.1
10.0.0.1          [2001:db8::1]:4711            2001:db8::1
10.0.0.1          2001:db8::1%eth0              2001:db8::1
::ffff:10.0.0.1   ::ffff:1.1.1.1                1.1.1.1
2001:db8:ffff::5  2001:db8::9                   2001:db8::9
-                 1.1.1.1                       unknown
"""


@pytest.mark.parametrize("row", CLIENTS.strip().splitlines())
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
