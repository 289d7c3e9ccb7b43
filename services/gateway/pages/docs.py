"""The API's description: /openapi.json for programs, /docs for people; both are built at start."""

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Node = dict[str, Any]

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--link:#0b63c5}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.7rem 1rem;overflow-x:auto;border-radius:6px}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;padding:.5rem 1rem}
summary{cursor:pointer}summary b{display:inline-block;width:4.5rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line)}
.key{font-size:.8rem;border:1px solid var(--line);border-radius:1rem;padding:0 .5rem}
a{color:var(--link)}@media(prefers-color-scheme:dark){:root{--link:#7db7ff}}
"""
KEYS = {
    "serviceKey": ("X-API-KEY", "SERVICE_API_KEY"),
    "adminKey": ("X-ADMIN-API-KEY", "ADMIN_API_KEY"),
    "ownKey": ("X-API-KEY", "OWN_API_KEY"),
}
PROBLEM = {"$ref": "#/components/responses/Problem"}


def load() -> Node:
    text = (Path(__file__).parents[1] / "openapi.yaml").read_text(encoding="utf-8")
    document: Node = yaml.safe_load(text)
    for operations in document["paths"].values():
        for operation in operations.values():  # each may be refused alike
            operation["responses"].setdefault("default", PROBLEM)
    return document


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
    """Return one self-contained page: no scripts, no external assets."""
    info = document["info"]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style>",
        f"<h1>{escape(info['title'])} API</h1><p>{escape(info['description'])}</p>",
        '<p><a href="/openapi.json">openapi.json</a>. In the folder of .env, to try it:</p>',
        "<pre>. ./.env; A=http://127.0.0.1:$GATEWAY_PORT</pre>",
    ]
    for tag in document["tags"]:
        name, description = escape(tag["name"]), escape(tag["description"])
        parts.append(f"<h2>{name}</h2><p>{description}</p>")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    parts += _operation(document, path, method, operation)
    return "\n".join(parts)


def _operation(document: Node, path: str, method: str, operation: Node) -> Iterator[str]:
    keys = dict.fromkeys(
        " ".join((KEYS[name][0], *needed))
        for choice in operation.get("security", ())
        for name, needed in choice.items()
    )
    badges = "".join(f' <span class="key">{key}</span>' for key in keys)
    yield (
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b>'
        f"<code>{escape(path)}</code> {escape(operation['summary'])}{badges}</summary>"
    )
    if "description" in operation:
        yield f"<p>{escape(operation['description'])}</p>"
    yield f"<h4>Try it</h4><pre>{escape(_curl(document, path, method, operation))}</pre>"
    if parameters := operation.get("parameters"):
        rows = [_resolved(document, parameter) for parameter in parameters]
        yield _table(
            [(f"{row['name']} ({row['in']})", row.get("description", "")) for row in rows],
            "Parameter",
        )
    if "requestBody" in operation:
        body = _resolved(document, operation["requestBody"])
        for kind, content in body["content"].items():
            yield f"<h4>Body <code>{escape(kind)}</code></h4>" + _content(document, content)
    answers = {
        status: _resolved(document, answer) for status, answer in operation["responses"].items()
    }
    yield _table([(status, answer["description"]) for status, answer in answers.items()], "Answer")
    for status, answer in answers.items():
        for content in answer.get("content", {}).values() if status != "default" else ():
            if "example" in content:
                yield f"<h4>{escape(status)}, for example</h4>{_pre(content['example'])}"
    yield "</details>"


def _curl(document: Node, path: str, method: str, operation: Node) -> str:
    words = [f'curl -X {method.upper()} "$A{path}"']
    for name in next(iter(operation.get("security", ())), ()):
        header, variable = KEYS[name]
        words.append(f'-H "{header}: ${variable}"')
    if "requestBody" in operation:
        kind, content = next(iter(_resolved(document, operation["requestBody"])["content"].items()))
        words.append(f"-H 'Content-Type: {kind}'")
        if "example" in content:
            example = content["example"]
            body = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)
            words.append("--data-binary '{}'".format(body.replace("'", "'\\''")))
    return " \\\n  ".join(words)


def _table(rows: list[tuple[str, str]], head: str) -> str:
    cells = "".join(f"<tr><td><code>{escape(name)}</code><td>{escape(text)}" for name, text in rows)
    return f"<table><tr><th>{head}<th>Meaning{cells}</table>"


def _content(document: Node, content: Node) -> str:
    schema = _resolved(document, content["schema"])
    required = schema.get("required", ())
    rows = [
        (name + ("" if name in required else "?"), _describe(document, field))
        for name, field in schema.get("properties", {}).items()
    ]
    table = _table(rows, "Field") if rows else ""
    return table + (_pre(content["example"]) if "example" in content else "")


def _describe(document: Node, schema: Node) -> str:
    schema = _resolved(document, schema)
    if "oneOf" in schema:
        return " or ".join(_describe(document, choice) for choice in schema["oneOf"])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " | ".join(value or "null" for value in schema["enum"])
    kind = schema["type"]
    words = [" or ".join(kind) if isinstance(kind, list) else kind]
    words += [f"{word} {schema[word]}" for word in _BOUNDS if word in schema]
    return ", ".join(words) + (f": {schema['description']}" if "description" in schema else "")


_BOUNDS = ("format", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")


def _resolved(document: Node, node: Node) -> Node:
    while "$ref" in node:
        found: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


def _pre(example: Any) -> str:
    return f"<pre>{escape(json.dumps(example, ensure_ascii=False, indent=2))}</pre>"
