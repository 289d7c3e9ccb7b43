"""The console's calls of the gateway: each has a token for itself."""

import base64
import uuid
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from libs.domain.scopes import operator_action
from libs.domain.signed_links import Tokens
from services.console.gateway import Gateway, part
from services.console.store.sessions import Visitor

KEYS = "o1:" + base64.b64encode(b"o" * 32).decode()


async def test_a_token_is_signed_for_the_method_and_path_that_the_gateway_sees() -> None:
    seen: list[tuple[str, str, str]] = []

    async def note(request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        seen.append((request.method, path, request.headers["X-Operator-Token"]))
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", note)
    fields: dict[str, Any] = dict.fromkeys(Visitor.__dataclass_fields__)
    visitor = Visitor(**fields | {"staff_id": uuid.uuid4(), "name": "Zoë Żak", "roles": ("sales",)})
    async with TestServer(app) as server, Gateway.open(str(server.make_url("/")), KEYS) as gateway:
        person = part("zażółć+x@example.pl")
        await gateway.get(visitor, f"/api/consent/audit/{person}", cursor="a b", limit=7)
        await gateway.post(visitor, "/api/dlq/retry", {"ids": []})
        await gateway.ask("DELETE", visitor, f"/api/silences/{part('1/2')}")
    assert [method for method, *_ in seen] == ["GET", "POST", "DELETE"]
    for method, path, token in seen:
        claims = Tokens(KEYS).verify(token, operator_action(method, path), datetime.now(UTC))
        assert claims.purpose == "sales"
