"""What a target or a library says, made fit for a log and the ledger."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import SplitResult, unquote, urlsplit

from yarl import URL

EXCERPT = 500

# A shorter part of a URL is an ordinary word, `services`, and would be missing in every text.
_LEAST_PART = 10
_LEAST_BASE64 = 8
_WORD = r"[^\s@<>\"',;:()]"
_ADDRESS = re.compile(rf"(?<!{_WORD}){_WORD}++@{_WORD}+")


class Redactor:
    """Strikes out secrets, addresses and control characters; keeps what fits an excerpt."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # The longest first: of a URL the whole goes, and not a part of it only.
        parts = sorted({p for s in secrets for p in _parts(s) if p}, key=len, reverse=True)
        forms = [form for part in parts for form in (_spelled(part), *_coded(part.encode()))]
        self._secrets = re.compile("|".join(forms) or r"(?!)")
        self._longest = 3 * len(parts[0]) if parts else 0  # as percent-encoded

    def __call__(self, text: str) -> str:
        cut = text[: EXCERPT * 4 + self._longest]
        shown = self._secrets.sub("***", cut)
        if len(cut) < len(text):  # the half of a secret may stand at the end
            shown = shown[: -self._longest or None]
        shown = _ADDRESS.sub("***@***", shown)
        return "".join(c if c.isprintable() else " " for c in shown)[:EXCERPT].strip()


def _parts(secret: str) -> Iterator[str]:
    """Return the secret, and of a URL also what makes it one, since a part is repeated too."""
    yield secret
    yield secret.removeprefix("whsec_")
    spellings = [secret]
    with suppress(ValueError):  # one of Apprise's
        spellings.append(str(URL(secret)))  # as it is sent
    for spelling in spellings:
        with suppress(ValueError):
            url = urlsplit(spelling)
            if url.scheme and url.netloc:
                yield from _parts_of_url(url)


def _parts_of_url(url: SplitResult) -> Iterator[str]:
    yield url.geturl()
    yield from (url.password or "", unquote(url.password or ""))
    pieces = [f"{url.path}?{url.query}" if url.query else url.path, url.username or ""]
    pieces += re.split(r"[/?&=#;]", f"{url.path}?{url.query}#{url.fragment}")
    if url.scheme not in {"http", "https"}:  # Apprise has tokens where others have the host
        pieces += re.split(r"[:@]", url.netloc)
    for piece in pieces:
        if len(piece) >= _LEAST_PART:
            yield from (piece, unquote(piece))


def _spelled(secret: str) -> str:
    """Return a pattern for it as it comes back in a URL, in JSON, in HTML, or in some of them."""
    return "".join(map(_character, secret))


def _character(c: str) -> str:
    if c.isascii() and c.isalnum():
        return c
    escapes = r"(?:\\|%(?:25)*5c)"
    if c == "\\":
        return f"(?i:{escapes}{{1,16}})"
    utf8 = c.encode()
    ways = [c, html.escape(c), f"&#{ord(c)};", f"&#x{ord(c):x};", f"u{ord(c):04x}"]
    ways += [json.dumps(c)[1:-1].lstrip("\\"), repr(utf8)[2:-1].lstrip("\\")]
    patterns = {*map(re.escape, ways), "".join(f"%(?:25)*{byte:02x}" for byte in utf8)}
    if c == " ":
        patterns.add(r"\+")
    return f"(?i:{escapes}{{0,8}}(?:{'|'.join(sorted(patterns))}))"


def _coded(raw: bytes) -> Iterator[str]:
    """Return patterns for its hexadecimal form, and for base64, whatever stands beside it there."""
    yield raw.hex()
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            form = encode(bytes(before) + raw)[first:last].decode()
            if len(form) >= _LEAST_BASE64:
                yield _spelled(form)
