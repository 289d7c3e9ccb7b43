"""The likely correction of an e-mail address like `anna@gmial.com`."""

import difflib
from functools import lru_cache

PROVIDERS = (
    "gmail.com", "wp.pl", "onet.pl", "o2.pl", "op.pl", "vp.pl", "interia.pl", "interia.eu",
    "poczta.onet.pl", "poczta.fm", "tlen.pl", "gazeta.pl", "outlook.com", "hotmail.com",
    "yahoo.com", "icloud.com", "proton.me", "protonmail.com", "live.com", "gmx.de", "ukr.net",
    "mail.com", "email.com", "example.com", "example.pl",
)  # fmt: skip
"""Domains of which a mistyped one may be meant."""


def suggestion(address: str) -> str | None:
    """Return the likely correction of `anna@gmial.com`. It is only asked about, never applied."""
    local, _, domain = address.lower().rpartition("@")
    meant = None if domain in PROVIDERS else _meant(domain)
    return f"{local}@{meant}" if meant else None


@lru_cache(1024)  # few domains make most of the addresses, and this costs more than the rest
def _meant(domain: str) -> str | None:
    return next(iter(difflib.get_close_matches(domain, PROVIDERS, n=1, cutoff=0.85)), None)
