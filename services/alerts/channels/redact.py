"""Redacts the text of a response or an error for the log and the ledger.

A secret may come back escaped, in base64, or cut in half. So this does not search for secrets: it
keeps only what cannot be part of one: plain words, and short numbers such as status codes.
"""

import re
from collections.abc import Iterable

EXCERPT = 500

_BETWEEN = re.compile(r"([\s{}\[\]()\":,;='<>]+)")
_NUMBER = re.compile(r"[+-]?\d{1,4}(?:\.\d{1,3}){0,2}[.!?]?")
_WORD = re.compile(r"[^\W\d_]{1,40}(?:[_-][^\W\d_]{1,40})*[.!?]?")
_LETTERS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?:[A-Z]{1,4}[a-z]{2,})+")  # the names of exceptions
_LEAST = 4  # letters; shorter parts of a secret are in every text


class Redactor:
    """Keeps the words that are not part of a secret, as many as fit into an excerpt."""

    def __init__(self, secrets: Iterable[str]) -> None:
        bare = (secret.partition("://")[2] or secret for secret in secrets)
        self._secrets = "\n".join(bare).casefold()
        self._parts = [part for part in _LETTERS.findall(self._secrets) if len(part) >= _LEAST]

    def __call__(self, text: str) -> str:
        said = "".join(
            piece if _BETWEEN.fullmatch(piece) or self._plain(piece) else "***"
            for piece in _BETWEEN.split(text[: EXCERPT * 4])
            if piece
        )
        return " ".join(said.split())[:EXCERPT]

    def _plain(self, piece: str) -> bool:
        if _NUMBER.fullmatch(piece):
            return True
        return _WORD.fullmatch(piece) is not None and all(
            map(self._harmless, _LETTERS.findall(piece))
        )

    def _harmless(self, word: str) -> bool:
        if not (word.islower() or word.isupper() or word.istitle() or _CAMEL.fullmatch(word)):
            return False  # mixed case, as in base64
        small = word.casefold()
        return len(word) < _LEAST or not (
            small in self._secrets or any(part in small for part in self._parts)
        )
