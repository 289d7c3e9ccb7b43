"""Logging in at the company's identity provider: OpenID Connect, authorization code with PKCE.

By OpenID Connect Core 1.0 (section 3.1), RFC 9700 and RFC 9207. There is one provider, so an answer
of another one is never meant for us.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

import aiohttp
from joserfc import jwk, jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jws import JWSRegistry
from pydantic import BaseModel
from yarl import URL

from libs.domain.email_address import MalformedEmail, normalise

# Unknown headers are ignored, as RFC 7515 requires.
SIGNATURES = JWSRegistry(algorithms=["RS256", "ES256"], strict_check_header=False)
KEPT_SECONDS = 3600.0
REFETCH_SECONDS = 60.0
"""An unknown key id fetches the keys again this often at most."""
ASK_SECONDS = 5.0
TIMEOUT = aiohttp.ClientTimeout(total=ASK_SECONDS)
LEEWAY = 60
"""Seconds by which the provider's clock may differ."""


class OidcError(Exception):
    """Nobody gets in. The text is for the log; `fault` is a key of texts.toml."""

    fault, status = "oidc_refused", 403


class AwayError(OidcError):
    """the identity provider does not answer"""

    fault, status = "oidc_away", 503


class StrayError(OidcError):
    """no answer to the login that this browser began"""

    fault = "oidc_stray"


class _Metadata(BaseModel):
    """OpenID Connect Discovery 1.0, section 3, as far as we read it."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    authorization_response_iss_parameter_supported: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    metadata: _Metadata
    keys: jwk.KeySet
    at: float


@dataclass(frozen=True, slots=True)
class Begun:
    """What the browser keeps until it comes back."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Identity:
    issuer: str
    subject: str
    email: str | None
    """In normal form; None: it has none, or the provider does not vouch for it."""
    proved_at: datetime
    """When the person last proved to the provider who they are; 1970: it does not say."""


@dataclass
class Provider:
    session: aiohttp.ClientSession
    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    _known: _Known | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def begin(self, *, again: bool) -> tuple[str, Begun]:
        """Return where to send the browser.

        :param again: let the provider ask for proof even of somebody whom it knows
        :raises OidcError:
        """
        known = await self._current()
        begun = Begun(*(secrets.token_urlsafe(32) for _ in range(3)))
        digest = hashlib.sha256(begun.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid email",
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        if again:
            asked["max_age"] = "0"
        return str(URL(known.metadata.authorization_endpoint).update_query(asked)), begun

    async def finish(self, begun: Begun, answer: Mapping[str, str]) -> Identity:
        """Return who logged in.

        :param answer: the query with which the provider sent the browser back
        :raises OidcError:
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), begun.state.encode()):
            raise StrayError("state")
        metadata = (await self._current()).metadata
        named = answer.get("iss")
        promised = metadata.authorization_response_iss_parameter_supported
        if named != self.issuer and (promised or named is not None):
            raise OidcError("issuer of the answer")
        if "error" in answer:
            raise OidcError(f"error {answer['error'][:100]}")
        form = {
            "grant_type": "authorization_code",
            "code": answer.get("code", ""),
            "redirect_uri": self.redirect_uri,
            "code_verifier": begun.verifier,
        }
        # RFC 6749, section 2.3.1: both are form-encoded first.
        client = aiohttp.encode_basic_auth(
            quote_plus(self.client_id), quote_plus(self.client_secret)
        )
        tokens = await self._ask(
            "POST", metadata.token_endpoint, data=form, headers={"Authorization": client}
        )
        return self._identity(await self._claims(str(tokens.get("id_token"))), begun.nonce)

    async def _claims(self, id_token: str) -> dict[str, Any]:
        try:
            try:
                keys = (await self._current()).keys
                claims = jwt.decode(id_token, keys, registry=SIGNATURES).claims
            except InvalidKeyIdError:
                keys = (await self._current(REFETCH_SECONDS)).keys
                claims = jwt.decode(id_token, keys, registry=SIGNATURES).claims
            needed: jwt.ClaimsOption = {"essential": True}
            jwt.JWTClaimsRegistry(leeway=LEEWAY, exp=needed, iat=needed).validate(claims)
        except (JoseError, ValueError) as error:
            raise OidcError(f"ID token: {type(error).__name__}") from None
        return claims

    def _identity(self, claims: Mapping[str, Any], nonce: str) -> Identity:
        """OpenID Connect Core 1.0, section 3.1.3.7; we trust no further audience."""
        subject = claims.get("sub")
        for name, right in (
            ("iss", claims.get("iss") == self.issuer),
            ("aud", claims.get("aud") in (self.client_id, [self.client_id])),
            ("azp", claims.get("azp", self.client_id) == self.client_id),
            ("nonce", claims.get("nonce") == nonce),
            ("sub", isinstance(subject, str) and 0 < len(subject) <= 255),
        ):
            if not right:
                raise OidcError(f"ID token: {name}")
        said = claims.get("auth_time")
        proved = min(said, time.time()) if isinstance(said, int) and said > 0 else 0
        return Identity(
            self.issuer, str(subject), _email(claims), datetime.fromtimestamp(proved, UTC)
        )

    async def _current(self, age: float = KEPT_SECONDS) -> _Known:
        """Return metadata and keys younger than this, in seconds."""
        try:
            async with asyncio.timeout(ASK_SECONDS), self._asking:
                if self._known is None or time.monotonic() - self._known.at >= age:
                    self._known = await self._fetch()
                return self._known
        except TimeoutError:
            raise AwayError("metadata") from None

    async def _fetch(self) -> _Known:
        url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await self._ask("GET", url)
        try:
            metadata = _Metadata.model_validate(found)
            authorization = URL(metadata.authorization_endpoint).origin()
        except ValueError:
            raise OidcError("metadata") from None
        if metadata.issuer != self.issuer:
            raise OidcError("metadata: issuer")
        if authorization != URL(self.issuer).origin():  # our pages let forms lead only there
            raise OidcError("metadata: origin of the authorization endpoint")
        keys: list[jwk.Key] = []
        for each in (await self._ask("GET", metadata.jwks_uri)).get("keys", ()):
            if isinstance(each, dict) and each.get("kty") in {"RSA", "EC"}:
                with suppress(JoseError, ValueError):  # a kind that we cannot use
                    keys.append(jwk.import_key(each))
        return _Known(metadata, jwk.KeySet(keys), time.monotonic())

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        try:
            async with self.session.request(
                method, url, allow_redirects=False, timeout=TIMEOUT, **options
            ) as response:
                text, status = await response.read(), response.status
            found = json.loads(text) if status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AwayError(type(error).__name__) from None
        except ValueError:
            found = None
        if status >= 500:
            raise AwayError(f"status {status}")
        if not isinstance(found, dict):
            raise OidcError(f"status {status} of {URL(url).path}")
        return found


def _email(claims: Mapping[str, Any]) -> str | None:
    # Entra has no email_verified; its xms_edov comes as true, 1, "1" or "true".
    vouched = claims.get("email_verified") is True or claims.get("xms_edov") in (True, "1", "true")
    try:
        return normalise(str(claims.get("email", ""))) if vouched else None
    except MalformedEmail:
        return None
