"""An answer of the identity provider that is not exactly right lets nobody in."""

import hashlib
import time
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey
from joserfc.jws import JWSRegistry
from pytest_aiohttp.plugin import AiohttpServer
from yarl import URL

from libs.common.process.settings import load
from services.console.people import oidc
from services.console.people.oidc import AwayError, Begun, Identity, OidcError, Provider, StrayError
from services.console.settings import ConsoleSettings

CLIENT, SECRET, REDIRECT = "ostoja", "s&cret", "https://console.example.com/console/oidc/callback"
EC = ECKey.generate_key("P-256", {"kid": "ec"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})


@dataclass
class Issuer:
    """An identity provider that says what a test wants."""

    url: str = ""
    keys: list[Key] = field(default_factory=lambda: [EC, RSA])
    metadata: dict[str, Any] = field(default_factory=dict)
    id_token: str = ""
    status: int = 200
    form: dict[str, str] = field(default_factory=dict)
    authorization: str = ""
    fetched: int = 0

    async def discover(self, _: web.Request) -> web.Response:
        paths = {"authorization_endpoint": "/go?p=1", "token_endpoint": "/token", "jwks_uri": "/k"}
        urls = {name: self.url + path for name, path in paths.items()}
        return web.json_response({"issuer": self.url, **urls, **self.metadata})

    async def publish(self, _: web.Request) -> web.Response:
        self.fetched += 1
        unusable: list[Any] = ["?", {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}, {"kty": "RSA"}]
        return web.json_response({"keys": unusable + KeySet(self.keys).as_dict()["keys"]})

    async def token(self, request: web.Request) -> web.Response:
        self.form = {name: str(value) for name, value in (await request.post()).items()}
        self.authorization = request.headers["Authorization"]
        return web.json_response({"id_token": self.id_token}, status=self.status)

    def sign(
        self,
        nonce: str | None,
        *,
        key: Key = EC,
        alg: str = "ES256",
        kid: str | None = None,
        **more: Any,
    ) -> None:
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "sub": "7", "nonce": nonce, "iat": now, "exp": now + 60,
        }  # fmt: skip
        claims = {name: each for name, each in (claims | more).items() if each is not None}
        header = {"alg": alg, "kid": kid or key.kid, "unknown": "header"}
        registry = JWSRegistry(algorithms=[alg], strict_check_header=False)
        self.id_token = jwt.encode(header, claims, key, registry=registry)


@pytest.fixture
async def issuer(aiohttp_server: AiohttpServer) -> Issuer:
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", issuer.discover)
    app.router.add_get("/k", issuer.publish)
    app.router.add_post("/token", issuer.token)
    issuer.url = str((await aiohttp_server(app)).make_url("")).rstrip("/")
    return issuer


@pytest.fixture
async def provider(issuer: Issuer) -> Any:
    async with ClientSession() as session:
        yield Provider(session, issuer.url, CLIENT, SECRET, REDIRECT)


async def finish(provider: Provider, begun: Begun, **more: str) -> Identity:
    return await provider.finish(begun, {"state": begun.state, "code": "c", **more})


@pytest.mark.parametrize(("key", "alg"), [(EC, "ES256"), (RSA, "RS256")])
async def test_the_right_answer_names_the_person(
    issuer: Issuer, provider: Provider, key: Key, alg: str
) -> None:
    url, begun = await provider.begin(again=False)
    asked = URL(url).query
    assert (asked["p"], asked["redirect_uri"], asked["state"]) == ("1", REDIRECT, begun.state)
    assert (asked["code_challenge_method"], asked["nonce"]) == ("S256", begun.nonce)
    assert "max_age" not in asked
    issuer.sign(begun.nonce, key=key, alg=alg, email="Ewa@Example.com", email_verified=True)
    found = await finish(provider, begun)
    assert (found.issuer, found.subject, found.email) == (issuer.url, "7", "ewa@example.com")
    assert found.proved_at.year == 1970
    challenge = hashlib.sha256(issuer.form["code_verifier"].encode()).digest()
    assert asked["code_challenge"] == urlsafe_b64encode(challenge).decode().rstrip("=")
    assert (issuer.form["code"], issuer.form["redirect_uri"]) == ("c", REDIRECT)
    assert b64decode(issuer.authorization.removeprefix("Basic ")) == b"ostoja:s%26cret"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"aud": "another"}, "aud"),
        ({"aud": [CLIENT, "another"]}, "aud"),
        ({"azp": "another"}, "azp"),
        ({"nonce": "of another login"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "InvalidClaim"),
        ({"exp": 1}, "Expired"),
        ({"exp": None}, "Missing"),
        ({"iat": 2**33}, "InvalidClaim"),
    ],
)
async def test_a_token_for_another_login_client_or_time_is_refused(
    issuer: Issuer, provider: Provider, claims: dict[str, Any], said: str
) -> None:
    _, begun = await provider.begin(again=False)
    issuer.sign(**{"nonce": begun.nonce} | claims)
    with pytest.raises(OidcError, match=said):
        await finish(provider, begun)


SHARED = OctKey.import_key("secret" * 8, {"kid": "rsa"})
OTHER = ECKey.generate_key("P-256", {"kid": "ec"})


@pytest.mark.parametrize(
    ("key", "alg", "said"),
    [
        (SHARED, "HS256", "UnsupportedAlgorithm"),
        (RSA, "RS384", "UnsupportedAlgorithm"),
        (RSA, "PS256", "UnsupportedAlgorithm"),
        (OTHER, "ES256", "BadSignature"),
    ],
)
async def test_only_rs256_and_es256_by_a_published_key_count(
    issuer: Issuer, provider: Provider, key: Key, alg: str, said: str
) -> None:
    _, begun = await provider.begin(again=False)
    issuer.sign(begun.nonce, key=key, alg=alg)
    with pytest.raises(OidcError, match=said):
        await finish(provider, begun)


@pytest.mark.parametrize("id_token", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_what_is_no_signed_token_is_refused(
    issuer: Issuer, provider: Provider, id_token: str
) -> None:
    _, begun = await provider.begin(again=False)
    issuer.id_token = id_token
    with pytest.raises(OidcError, match="ID token"):
        await finish(provider, begun)


async def test_an_unknown_key_id_fetches_the_keys_again_once_a_minute(
    issuer: Issuer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, begun = await provider.begin(again=False)
    fresh = ECKey.generate_key("P-256", {"kid": "new"})
    issuer.keys.append(fresh)
    issuer.sign(begun.nonce, key=fresh)
    with pytest.raises(OidcError, match="KeyId"):  # they were fetched just now
        await finish(provider, begun)
    assert issuer.fetched == 1
    monkeypatch.setattr(oidc, "REFETCH_SECONDS", 0.0)
    assert (await finish(provider, begun)).subject == "7"
    assert issuer.fetched == 2


async def test_an_answer_counts_only_from_this_issuer_and_to_this_browser(
    issuer: Issuer, provider: Provider
) -> None:
    _, begun = await provider.begin(again=False)
    issuer.sign(begun.nonce)
    assert await finish(provider, begun, iss=issuer.url)
    issuer.form.clear()
    for state in ("", "żółw", "of another browser"):
        with pytest.raises(StrayError):
            await finish(provider, begun, state=state)
    with pytest.raises(OidcError, match="issuer"):
        await finish(provider, begun, iss="https://evil.example")
    with pytest.raises(OidcError, match="access_denied"):
        await finish(provider, begun, error="access_denied")
    assert issuer.form == {}  # no code of theirs was sent anywhere
    issuer.metadata = {"authorization_response_iss_parameter_supported": True}
    provider = replace(provider, _known=None)
    with pytest.raises(OidcError, match="issuer"):  # it promises to name itself
        await finish(provider, begun)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"issuer": "https://evil.example"}, "issuer"),
        ({"authorization_endpoint": "https://evil.example/go"}, "origin"),
        ({"jwks_uri": None}, "metadata"),
        ({"authorization_endpoint": "/go"}, "metadata"),
    ],
)
async def test_metadata_that_lead_elsewhere_are_refused(
    issuer: Issuer, provider: Provider, metadata: dict[str, Any], said: str
) -> None:
    issuer.metadata = metadata
    with pytest.raises(OidcError, match=said):
        await provider.begin(again=False)


async def test_a_code_that_was_used_is_refused_and_a_fault_of_the_provider_is_told_from_that(
    issuer: Issuer, provider: Provider
) -> None:
    _, begun = await provider.begin(again=False)
    issuer.sign(begun.nonce)
    issuer.status = 400
    with pytest.raises(OidcError, match="400"):
        await finish(provider, begun)
    issuer.status = 502
    with pytest.raises(AwayError):
        await finish(provider, begun)
    away = Provider(provider.session, "http://127.0.0.1:1", CLIENT, SECRET, REDIRECT)
    with pytest.raises(AwayError):
        await away.begin(again=False)


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({"email_verified": False}, None),
        ({"email_verified": "true"}, None),
        ({}, None),
        ({"email_verified": True, "email": "no address"}, None),
        ({"xms_edov": "1"}, "ewa@example.com"),
        ({"xms_edov": True}, "ewa@example.com"),
        ({"xms_edov": "0"}, None),
    ],
)
async def test_an_address_counts_only_if_the_provider_vouches_for_it(
    issuer: Issuer, provider: Provider, claims: dict[str, Any], email: str | None
) -> None:
    _, begun = await provider.begin(again=False)
    issuer.sign(begun.nonce, **{"email": "ewa@example.com"} | claims)
    assert (await finish(provider, begun)).email == email


@pytest.mark.parametrize(
    ("auth_time", "ago"),
    [(lambda now: now - 30, 30), (lambda now: now + 900, 0), (str, None)],
)
async def test_a_step_up_asks_for_proof_and_goes_by_when_it_was_given(
    issuer: Issuer, provider: Provider, auth_time: Callable[[int], Any], ago: int | None
) -> None:
    url, begun = await provider.begin(again=True)
    assert URL(url).query["max_age"] == "0"
    now = int(time.time())
    issuer.sign(begun.nonce, auth_time=auth_time(now))
    proved_at = (await finish(provider, begun)).proved_at.timestamp()
    assert proved_at == 0 if ago is None else abs(now - ago - proved_at) < 10


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"OIDC_ISSUER": "https://id.example"}, "OIDC_CLIENT_ID: OIDC_ISSUER needs it"),
        ({"OIDC_ISSUER": "https://id.example"}, "OIDC_CLIENT_SECRET: OIDC_ISSUER needs it"),
        ({"OIDC_ISSUER": "http://id.example"}, "OIDC_ISSUER: "),
        ({"OIDC_ISSUER": "http://localhost.evil.example"}, "OIDC_ISSUER: "),
        ({"OIDC_CLIENT_ID": "ostoja"}, "OIDC_CLIENT_ID: needs OIDC_ISSUER"),
        ({"OIDC_ONLY": "on"}, "OIDC_ONLY: needs OIDC_ISSUER"),
    ],
)
def test_half_a_provider_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    needed = {
        "HTTP_PORT": "0",
        "METRICS_PORT": "0",
        "INTERNAL_API_KEY": "k" * 16,
        "DATABASE_URL": "postgresql://",
        "GATEWAY_URL": "http://gateway",
        "OPERATOR_KEYS": "o1:" + b64encode(b"o" * 32).decode(),
        "PUBLIC_BASE_URL": "https://console.example.com",
    }
    for name, value in (needed | given).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=said):
        load(ConsoleSettings)
