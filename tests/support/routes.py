"""The gateway's table of routes, without a gateway."""

from inspect import signature
from typing import Any, TypeVar, cast

from aiohttp import web

from services.gateway.door.access import Access, Requirements
from services.gateway.http import Api
from services.gateway.intake.forms.routes import FormRoutes
from services.gateway.intake.pings import PingRoutes
from services.gateway.pages import console, docs, widget

T = TypeVar("T")


class _Anything:
    """Stands where only the names of routes are looked at."""

    def __getattr__(self, _: str) -> Any:
        return self

    def __getitem__(self, _: str) -> Any:
        return self

    def __contains__(self, _: str) -> bool:
        return True


def _made(kind: type[T], **given: Any) -> T:
    """Make one whose other parts are anything."""
    return kind(**dict.fromkeys(signature(kind).parameters, _Anything()) | given)


def route_table() -> dict[tuple[str, str], Requirements]:
    """Return what each route of the gateway requires, by method in lower case and template."""
    app = web.Application()
    found: dict[tuple[str, str], Requirements] = {}

    class Recorder:
        def guard(self, route: web.AbstractRoute, requirements: Requirements) -> None:
            assert route.resource is not None
            found[route.method.lower(), route.resource.canonical] = requirements

    nothing = cast("Any", _Anything())
    forms = _made(FormRoutes, forms={}, public_base_url="")
    api = _made(Api, forms=forms, pings=_made(PingRoutes), slack_secret=None)
    api.add_routes(app, cast("Access", Recorder()))
    console.add_routes(app, cast("Access", Recorder()), nothing, nothing, nothing)
    docs.add_routes(app)
    widget.add_routes(app, cast("Access", Recorder()), "")
    for route in app.router.routes():
        assert route.resource is not None
        found.setdefault((route.method.lower(), route.resource.canonical), Requirements())
    return found
