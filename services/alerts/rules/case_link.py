"""Personal links to a case, by which one answers as their person: only hashes are stored. Pure."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from uuid import UUID

TOKEN_BYTES = 16  # 22 characters, which fit an SMS


@dataclass(frozen=True, slots=True, repr=False)
class Links:
    key: bytes
    base_url: str

    def token(self, case_id: UUID, person: str, generation: int) -> str:
        """Return the same token each time, so that it can be written when a message is claimed."""
        said = f"case-link\0{case_id}\0{person}\0{generation}".encode()
        digest = hmac.digest(self.key, said, hashlib.sha256)
        return urlsafe_b64encode(digest[:TOKEN_BYTES]).rstrip(b"=").decode()

    def url(self, token: str) -> str:
        return f"{self.base_url}/a/{token}"


def hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
