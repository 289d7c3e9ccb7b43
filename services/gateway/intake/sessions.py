"""Chat sessions: the id grants access to the conversation, so a guessable one is replaced."""

import json
import re
import secrets

from libs.common.http.application import check_json

# 22 letters of base64url hold 128 bits, as a UUID or 32 hexadecimal digits nearly do.
_STRONG = re.compile(r"[A-Za-z0-9_-]{22,200}")
_DIFFERENT_LETTERS = 8
_ALLOWED = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")


def issued(body: bytes) -> bytes:
    """Return a chat message, with a new session id if it has none or a weak one.

    :raises Problem: it is not JSON that any service takes
    """
    data = check_json(body)
    given = data.get("session_id", "none") if isinstance(data, dict) else None
    if not isinstance(given, str) or not _ALLOWED.fullmatch(given) or is_strong(given):
        return body  # valid, or rejected by the upstream
    return json.dumps(
        {**data, "session_id": secrets.token_urlsafe(16)}, ensure_ascii=False
    ).encode()


def holder_of(body: bytes, key: str) -> str | None:
    """Return who holds the Idempotency-Key of a chat message; None if nobody can.

    A weak session is anybody's, and its repeat does not know the id that was issued for it. There
    the key itself tells the sender from others, if it cannot be guessed.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None  # the upstream will refuse it
    session = data.get("session_id") if isinstance(data, dict) else None
    if isinstance(session, str) and is_strong(session):
        return f"session:{session}"
    return "the key" if is_strong(key) else None


def is_strong(session_id: str) -> bool:
    return bool(_STRONG.fullmatch(session_id)) and len(set(session_id)) >= _DIFFERENT_LETTERS
