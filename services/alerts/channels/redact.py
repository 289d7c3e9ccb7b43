"""What a target or a library says, made fit for a log and the ledger."""

import html
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import SplitResult, quote, quote_plus, unquote, urlsplit

from yarl import URL

EXCERPT = 500

# A shorter part of a URL is an ordinary word, `services`, and would be missing in every text.
_LEAST_PART = 10
_LEAST_BASE64 = 8
_ADDRESS = re.compile(r"[^\s@<>\"',;:()]+@[^\s@<>\"',;:()]+")


class Redactor:
    """Strikes out secrets, addresses and control characters; keeps what fits an excerpt."""

    def __init__(self, secrets: Iterable[str]) -> None:
        parts = {part for secret in secrets for part in _parts(secret) if part}
        # The longest first: of a URL the whole goes, and not a part of it only.
        forms = sorted({form for part in parts for form in _forms(part)}, key=len, reverse=True)
        self._longest = len(forms[0]) if forms else 0
        self._secrets = re.compile("|".join(map(re.escape, forms)) or r"(?!)")

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
        spellings.append(str(URL(secret)))  # as aiohttp writes it
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


def _forms(secret: str) -> Iterator[str]:
    """Return the spellings in which it may come back: in a URL, in JSON, in HTML, in a header."""
    raw = secret.encode()
    plain = {
        secret,
        html.escape(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        repr(raw)[2:-1],
        raw.hex(),
    }
    yield from plain
    yield from (form.replace("/", "\\/") for form in plain)
    for form in (secret, *_base64(raw)):
        yield form
        for quoted in (quote(form), quote(form, safe=""), quote_plus(form)):
            yield quoted
            yield re.sub("%..", lambda found: found[0].lower(), quoted)


def _base64(raw: bytes) -> Iterator[str]:
    """Return the characters that are the same whatever stands before and after it."""
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            form = encode(bytes(before) + raw)[first:last].decode()
            if len(form) >= _LEAST_BASE64:
                yield form
