"""API keys, people and the record: lists like the others (lists.py), of our own tables."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from pydantic import ValidationError

from services.console.api import acts_of, key_id, key_state
from services.console.keys.keys import grantable
from services.console.messages import CreateKey, Invite, RefusedError
from services.console.pages.base import Call, Site
from services.console.rules import Role
from services.console.store.sessions import Visitor
from services.console.store.sql import run

BAD = {"email": "bad_email", "name": "bad_name", "roles": "no_roles", "language": "no_roles"}
FILTERS = ("actor", "action", "day")
KEYS = (
    "ADMIN_API_KEY", "SERVICE_API_KEY", "ADMIN_API_KEY_PREVIOUS", "SERVICE_API_KEY_PREVIOUS",
)  # fmt: skip


async def all_keys(site: Site, visitor: Visitor, _: web.Request) -> Mapping[str, Any]:
    async with site.engine.connect() as tx:
        found = await run(tx, "all_keys")
    shown = [each._asdict() | {"state": key_state(each).replace(" ", "_")} for each in found]
    return {"items": shown, "scopes": grantable(visitor.roles)}


async def create_key(call: Call) -> Mapping[str, Any]:
    limit, form = call.text("limit"), call.form
    preset = call.offers["presets"].get(call.text("preset"))
    try:
        body = CreateKey.model_validate(
            {
                **{name: str(form.get(name, "")) for name in ("name", "purpose", "owner")},
                "scopes": preset or list(form.getall("scope", ())),
                "expires_at": datetime.now(UTC) + timedelta(days=int(call.text("days"))),
                "limits": [limit] if limit else [],
            }
        )
    except (ValidationError, ValueError):
        raise RefusedError("bad_key", 422) from None
    secret, confirmed = await call.site.keys.create(call.visitor.actor, body.columns())
    return {"secret": secret, "confirmed": confirmed}


async def rotate_key(call: Call) -> Mapping[str, Any]:
    """Show the new secret in the answer itself, not after a redirect: it must not be in a URL."""
    if (hours := call.text("overlap")) not in map(str, call.offers["overlaps"]):
        raise RefusedError("bad_key", 422)
    actor, overlap = call.visitor.actor, timedelta(hours=int(hours))
    secret, confirmed = await call.site.keys.rotate(actor, key_id(call.request), overlap, None)
    return {"secret": secret, "confirmed": confirmed}


async def revoke_key(call: Call) -> Mapping[str, Any]:
    actor, reason = call.visitor.actor, call.reason()
    return {"confirmed": await call.site.keys.revoke(actor, key_id(call.request), reason)}


async def everybody(site: Site, visitor: Visitor, _: web.Request) -> Mapping[str, Any]:
    alone = set(visitor.roles) == set(Role)
    return {"items": await site.people.listed(), "roles": list(Role), "alone": alone}


async def invite(call: Call) -> Mapping[str, Any]:
    given = {name: call.form.get(name) for name in ("email", "name", "language")}
    try:
        body = Invite.model_validate(given | {"roles": _roles(call)})
    except ValidationError as error:
        raise RefusedError(BAD[str(error.errors()[0]["loc"][0])], 422) from None
    await call.site.people.invite(
        call.visitor.actor, body.email, body.name, body.roles, body.language
    )
    return {"invited": body.email}


async def invite_again(call: Call) -> Mapping[str, Any]:
    email, _ = await call.site.people.invite_again(call.visitor.actor, call.id("person"))
    return {"invited": email}


async def set_roles(call: Call) -> None:
    if not (roles := _roles(call)):
        raise RefusedError("no_roles", 422)
    await call.site.people.set_roles(call.visitor.actor, call.id("person"), roles)


async def reset_factor(call: Call) -> None:
    await call.site.people.reset_factor(call.visitor.actor, call.id("person"))


async def disable(call: Call) -> None:
    await call.site.people.disable(call.visitor.actor, call.id("person"), call.reason())


def _roles(call: Call) -> list[Role]:
    return [role for role in Role if role in set(call.form.getall("role", ()))]


async def record(site: Site, _: Visitor, request: web.Request) -> Mapping[str, Any]:
    # A form sends all of its fields, including empty ones.
    given = {name: value for name, value in request.query.items() if value}
    found = await acts_of(site.engine, given)
    known = await site.people.listed()
    async with site.engine.connect() as tx:
        kinds = (await run(tx, "kinds_of_acts")).scalars()
    asked = {name: request.query.get(name, "") for name in FILTERS}
    actors = [(str(each.id), each.name) for each in known] + [(key, key) for key in KEYS]
    more = (older := found["next_cursor"]) and urlencode({**asked, "cursor": older})
    return {"items": found["items"], "asked": asked, "kinds": kinds, "actors": actors, "more": more}
