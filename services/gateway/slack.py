"""Requests of Slack: the signature over their raw body, and the payload in their form."""

import hashlib
import hmac
import re
from urllib.parse import parse_qs

from multidict import CIMultiDictProxy

from libs.common.http.application import Problem

MAX_AGE = 300
"""Seconds, as Slack recommends. Within them, the key of the answer makes a replay harmless."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def payload_of(secret: str, headers: CIMultiDictProxy[str], body: bytes, now: float) -> bytes:
    """Return the JSON that a signed form carries; it is not validated.

    :param secret: or two, with a space between, while Slack changes from one to the other
    :raises Problem: 401 not signed by Slack, or too long ago; 400 the form has no payload
    """
    if not _is_signed(secret, headers, body, now):
        raise Problem(401, detail="this requires a recent signature of Slack")
    try:
        (payload,) = parse_qs(body.decode(), max_num_fields=10)["payload"]
    except (ValueError, LookupError):
        raise Problem(400, detail="the form must have one payload") from None
    return payload.encode()


def _is_signed(secret: str, headers: CIMultiDictProxy[str], body: bytes, now: float) -> bool:
    given = headers.get("X-Slack-Signature", "").encode("utf-8", "surrogateescape")
    timestamp = headers.get("X-Slack-Request-Timestamp", "")
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > MAX_AGE:
        return False
    signed = b"v0:%s:%s" % (timestamp.encode(), body)
    expected = [hmac.new(each.encode(), signed, hashlib.sha256) for each in secret.split()]
    return any(hmac.compare_digest(given, b"v0=" + each.hexdigest().encode()) for each in expected)
