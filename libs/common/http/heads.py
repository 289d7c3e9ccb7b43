"""The longest allowed value of each header that we read; application.py refuses longer ones (P17).

Add each further header that we read. tests/unit/common/test_heads.py finds what is missing.
"""

from collections.abc import Mapping

MOST_BYTES: Mapping[bytes, int] = {
    # aiohttp's own parser of it is quadratic in `;`, and so is the standard library's.
    b"content-type": 256,
    b"content-encoding": 64,
    b"transfer-encoding": 64,
    b"connection": 256,
    b"expect": 64,
    b"upgrade": 256,
    b"host": 300,
    b"accept": 1024,
    b"accept-encoding": 256,
    b"accept-language": 256,
    b"authorization": 1024,
    b"access-control-request-method": 64,
    b"cookie": 8192,  # those of other applications on the host as well
    b"if-none-match": 512,
    b"origin": 512,
    b"referer": 4096,  # browsers cut a longer one
    b"user-agent": 1024,
    b"x-forwarded-for": 1024,
    b"idempotency-key": 512,
    b"x-proof": 4096,
    b"x-request-id": 512,
    b"x-api-key": 512,
    b"x-admin-api-key": 512,
    b"x-operator": 1024,
    b"x-operator-roles": 512,
    b"x-operator-token": 4096,
    b"x-refresh": 64,
    b"x-slack-signature": 256,
    b"x-slack-request-timestamp": 64,
    b"sec-fetch-site": 64,
    b"sec-fetch-mode": 64,
    b"x-accepted-at": 64,
    b"x-caller": 64,
    b"x-caller-key": 64,
    b"x-client-address": 64,
    b"x-client-address-from": 64,
    b"x-internal-key": 512,
    b"x-over-budget": 64,
    b"traceparent": 256,
    b"tracestate": 512,
}


def media_type(headers: Mapping[str, str]) -> str:
    """Return the Content-Type without its parameters, in lower case; empty without one.

    aiohttp's `content_type` parses them as well, and its `charset` may name a slow codec.
    """
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()
