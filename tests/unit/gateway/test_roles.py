"""No service takes the gateway's word for granted: each checks the role of who calls."""

import re
import sys
from importlib import import_module
from inspect import isclass, signature
from pkgutil import iter_modules
from typing import Any
from unittest.mock import MagicMock

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from libs.common.http.application import CALLER, INTERNAL_KEY, create_app
from libs.domain.scopes import Scope
from services.gateway.door.access import Requirements
from services.gateway.door.clients import SCOPES, Role
from services.gateway.http import FORWARDED, Route
from tests.support.shipped import EXAMPLE

KEY = "k" * 16
OURS = (
    Route("POST", "/internal/alerts", "alerts", Requirements(Scope.ALERTS_WRITE)),
    Route("POST", "/internal/pings", "alerts", Requirements(Scope.ALERTS_WRITE)),
    Route("POST", "/internal/leads", "followups", Requirements(Scope.LEADS_WRITE)),
    Route("GET", "/api/alerts/{id}", "alerts", Requirements(Scope.ALERTS_READ)),
)
KEYED = [*(route for route in FORWARDED if route.requires.scope is not None), *OURS]


def made(cls: type[Any]) -> Any:
    # None of them is reached; the days become a timedelta, and the company's file is read.
    nothing = MagicMock(suppression_retention_days=1, company_config=EXAMPLE / "company.toml")
    return cls(**dict.fromkeys(signature(cls).parameters, nothing))


def app_of(service: str) -> web.Application:
    """Return the service's routes, with nothing behind them."""
    app = create_app(internal_key=KEY)
    name = "services.console.api" if service == "console" else f"services.{service}.http"
    package = import_module(name)
    for found in iter_modules(getattr(package, "__path__", ()), f"{name}."):
        import_module(found.name)
    for module in [each for each in sys.modules if each.startswith(name)]:
        for kind in vars(sys.modules[module]).values():
            if isclass(kind) and kind.__module__ == module and hasattr(kind, "add_to"):
                made(kind).add_to(app)
    return app


@pytest.mark.parametrize("route", KEYED, ids=lambda route: f"{route.method} {route.path}")
async def test_a_keyed_route_refuses_every_other_role(
    route: Route, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app_of(route.upstream))
    path = re.sub(r"\{\w+(:.*)?\}", "x", route.path)
    # A key of one's own with another scope than those of the admin counts as the service's.
    admitted = [role for role in Role if route.requires.scope in SCOPES.get(role, ())]
    admitted = admitted or [Role.SERVICE]
    for role in ({*Role} - {*admitted}) | {None}:
        headers = {INTERNAL_KEY: KEY} | ({CALLER: role} if role else {})
        async with client.request(route.method, path, headers=headers) as answer:
            assert answer.status == 401, role
            assert (await answer.json())["detail"] == f"this requires the {admitted[0]} key"
