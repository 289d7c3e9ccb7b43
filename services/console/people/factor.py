"""The second factor: codes of an app (TOTP, RFC 6238), and recovery codes for a lost phone."""

import base64
import hashlib
import hmac
import re
import secrets

import pyotp
import segno
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from libs.domain.signed_links import parse_keys

RECOVERY_CODES = 10
NEW_SECRET = pyotp.random_base32
SECRET = re.compile("[A-Z2-7]{32}")
_SECONDS = 30


class Seal:
    """Keys made of OPERATOR_KEYS: the first one seals, and each opens what it has sealed."""

    def __init__(self, keys: str) -> None:
        made = [hmac.digest(key, b"console", hashlib.sha256) for key in parse_keys(keys).values()]
        self._sealing = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in made])

    def close(self, secret: str) -> bytes:
        return self._sealing.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Return the secret; if no key opens it, a random one, for which no code is right."""
        try:
            return self._sealing.decrypt(sealed).decode()
        except InvalidToken:
            return NEW_SECRET()


def step_of(secret: str, code: str, now: float) -> int | None:
    """Return the time step whose code this is: this one or, for a slow clock or thumb, a neighbour.

    RFC 6238, 5.2. A step opens once: the caller keeps the last one.
    """
    totp, given = pyotp.TOTP(secret), plain(code)
    middle = int(now) // _SECONDS
    for step in (middle, middle - 1, middle + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), given.encode()):
            return step
    return None


def plain(code: str) -> str:
    """Return a code without its groups."""
    return "".join(code[:100].split()).replace("-", "").lower()


def new_recovery_codes() -> list[str]:
    """Return codes of 64 random bits: a fast hash is enough to keep them."""
    texts = (secrets.token_hex(8) for _ in range(RECOVERY_CODES))
    return ["-".join(text[at : at + 4] for at in range(0, 16, 4)) for text in texts]


def uri_of(secret: str, email: str) -> str:
    """Return what an app reads, by a link or by `picture` with a camera."""
    return pyotp.TOTP(secret, issuer="Ostoja", name=email).provisioning_uri()


def picture(uri: str) -> str:
    return segno.make(uri, error="m").svg_inline(scale=5, light="#fff")
