"""API keys: list, make, rotate, revoke."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Annotated, Any, Self

from aiohttp import web
from multidict import MultiMapping
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.http.application import Model, Moment, json_response, parse
from libs.domain import limits
from libs.domain.acts import Actor
from libs.domain.scopes import NOT_FOR_KEYS, Scope
from services.console.api.caller import for_admins
from services.console.keys.keys import (
    Confirmation,
    KeyEndedError,
    Keys,
    NotRestoredError,
    NotYoursError,
    TooManyKeysError,
    UnknownKeyError,
)
from services.console.rules import ID, Secret, expiry_fault
from services.console.store import keys
from services.console.store.versions import KeysRestoredError

STATUS = {
    NotYoursError: 403,
    UnknownKeyError: 404,
    KeyEndedError: 409,
    KeysRestoredError: 409,
    NotRestoredError: 409,
    TooManyKeysError: 409,
}


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(f"{text!r} is not a network like 10.0.0.0/8") from None


def _expiry(at: datetime) -> datetime:
    if fault := expiry_fault(at, datetime.now(UTC)):
        raise ValueError(fault)
    return at


def _of_a_key(scope: Scope) -> Scope:
    if scope in NOT_FOR_KEYS:
        raise ValueError("no key may have this scope")
    return scope


def _plain(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of text")
    return text.strip()


KeyScope = Annotated[Scope, Field(strict=False), AfterValidator(_of_a_key)]
Name = Annotated[str, Field(max_length=100), AfterValidator(_plain)]
Reason = Annotated[str, Field(min_length=3, max_length=500), AfterValidator(_plain)]
Expiry = Annotated[Moment, AfterValidator(_expiry)]
Limits = Annotated[list[limits.Limit], Field(max_length=2)]
Networks = Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=20)]


_REASON: TypeAdapter[str] = TypeAdapter(Reason)


def reason_in(form: MultiMapping[Any]) -> str | None:
    """Return the reason in a page's form; None if it is none."""
    try:
        return _REASON.validate_python(str(form.get("reason", "")).strip())
    except ValidationError:
        return None


class Create(Model):
    name: Name
    purpose: Reason
    owner: Name
    scopes: Annotated[list[KeyScope], Field(min_length=1)]
    expires_at: Expiry
    limits: Limits = Field([])
    networks: Networks = Field([])

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        spans = [limits.parse(text)[1] for text in self.limits]
        if len(set(spans)) < len(spans):
            raise ValueError("two limits of the same span")
        return self


class Rotate(Model):
    overlap_hours: Annotated[int, Field(ge=0, le=720)] = 24
    expires_at: Expiry | None = None


class Revoke(Model):
    reason: Reason


class AcceptRestore(Model):
    confirm: bool = False


class KeyRoutes:
    def __init__(self, engine: AsyncEngine, changes: Keys) -> None:
        self._engine = engine
        self._keys = changes

    def add_to(self, app: web.Application) -> None:
        for method, path, handler in (
            ("GET", "/api/keys", self.list),
            ("POST", "/api/keys", self.create),
            ("POST", "/api/keys/accept-restore", self.accept_restore),
            ("POST", "/api/keys/{id}/rotate", self.rotate),
            ("POST", "/api/keys/{id}/revoke", self.revoke),
        ):
            app.router.add_route(method, path, for_admins(handler, STATUS))

    async def list(self, _: web.Request) -> web.Response:
        async with self._engine.connect() as tx:
            found = await keys.listed(tx)
        restored = await self._keys.restored()
        return json_response(
            {
                "items": [_shown(each) for each in found],
                "restored": restored and _lacking(asdict(restored)),
            }
        )

    async def create(self, request: web.Request) -> web.Response:
        body = await parse(request, Create)
        values = body.model_dump()
        values["scopes"] = sorted(set(body.scopes))
        secret, confirmed = await self._keys.create(Actor.of(request.headers), values)
        return _answer(confirmed, secret, 201)

    async def rotate(self, request: web.Request) -> web.Response:
        body = await parse(request, Rotate)
        overlap = timedelta(hours=body.overlap_hours)
        secret, confirmed = await self._keys.rotate(
            Actor.of(request.headers), _id(request), overlap, body.expires_at
        )
        return _answer(confirmed, secret)

    async def revoke(self, request: web.Request) -> web.Response:
        """Answer 200 once no gateway accepts the key; 202 names those that may still do."""
        body = await parse(request, Revoke)
        return _answer(
            await self._keys.revoke(Actor.of(request.headers), _id(request), body.reason)
        )

    async def accept_restore(self, request: web.Request) -> web.Response:
        """Without `confirm`, only say what was changed since the backup."""
        body = await parse(request, AcceptRestore)
        if not body.confirm:
            if (lacking := await self._keys.restored()) is None:
                raise NotRestoredError
            return json_response(_lacking(asdict(lacking)))
        lacking, confirmed = await self._keys.accept_restore(Actor.of(request.headers))
        return _answer(confirmed, **_lacking(asdict(lacking)))


def _id(request: web.Request) -> str:
    if not ID.fullmatch(given := request.match_info["id"]):
        raise UnknownKeyError
    return given


def _answer(
    confirmed: Confirmation, secret: Secret | None = None, status: int = 200, **more: Any
) -> web.Response:
    body: dict[str, Any] = {**more, "in_force_on": confirmed.in_force_on}
    if secret is not None:
        body |= {"id": secret.key_id, "key": secret.text}
    if confirmed.waiting_for:
        waiting = [
            {"process": each.process, "seen_at": each.seen_at.isoformat()}
            for each in confirmed.waiting_for
        ]
        return json_response({**body, "waiting_for": waiting}, 202)
    return json_response(body, status)


def _lacking(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "noticed_at": found["noticed_at"].isoformat()}


def key_state(row: Any) -> str:
    if row["revoked_at"]:
        return "revoked"
    return "in force" if row["expires_at"] > datetime.now(UTC) else "expired"


def _shown(row: Any) -> dict[str, Any]:
    shown = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
    del shown["ends"]
    return {
        **shown,
        "state": key_state(row),
        "secrets": sorted(each.isoformat() for each in row["ends"] or ()),
    }
