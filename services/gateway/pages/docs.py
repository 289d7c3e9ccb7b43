"""The API's description: /openapi.json for programs, /docs for people; both are made at start."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from services.gateway.pages import TEMPLATES

Node = dict[str, Any]

FOLDER = Path(__file__).parents[1]
KEYS = {
    "serviceKey": ("X-API-KEY", "SERVICE_API_KEY"),
    "adminKey": ("X-ADMIN-API-KEY", "ADMIN_API_KEY"),
    "ownKey": ("X-API-KEY", "OWN_API_KEY"),
}
PROBLEM = {"$ref": "#/components/responses/Problem"}


def load() -> Node:
    """Join openapi.yaml and the file of each tag."""
    document = _read("openapi.yaml") | {"paths": {}, "webhooks": {}}
    for tag in document["tags"]:
        part = _read(f"openapi/{tag['name']}.yaml")
        document["components"]["schemas"] |= part.get("components", {}).get("schemas", {})
        document["webhooks"] |= part.get("webhooks", {})
        for path, operations in part["paths"].items():
            document["paths"].setdefault(path, {}).update(operations)
            for operation in operations.values():  # each may be refused alike
                operation["tags"] = [tag["name"]]
                operation["responses"].setdefault("default", PROBLEM)
    return document


def _read(name: str) -> Node:
    text = (FOLDER / name).read_text(encoding="utf-8")
    found: Node = yaml.load(text, yaml.CSafeLoader)  # in C: half a second less at each start
    return found


def add_routes(app: web.Application) -> None:
    document = load()
    as_json = json.dumps(document, ensure_ascii=False).encode()
    page = render(document).encode()

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=as_json, content_type="application/json")

    async def docs(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/html", charset="utf-8")

    async def home(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/docs"})

    app.router.add_get("/", home)
    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/docs", docs)


def render(document: Node) -> str:
    return TEMPLATES.get_template("pages/docs.html").render(
        document, keys=KEYS, of=partial(_resolved, document), badges=_badges
    )


def _badges(operation: Node) -> Iterable[str]:
    """Return the headers that open it, with the scope; once, if two keys come in one header."""
    needed = (pair for choice in operation.get("security", ()) for pair in choice.items())
    return dict.fromkeys(" ".join((KEYS[name][0], *scopes)) for name, scopes in needed)


def _resolved(document: Node, node: Node) -> Node:
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node
