"""The description tells the truth: every route is in it, and nothing else is."""

import gzip
import hashlib
import json
import re
import shlex
from base64 import b64encode
from html import unescape
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient
from openapi_spec_validator import validate
from pytest_aiohttp.plugin import AiohttpClient

from libs.common.http.application import create_app
from libs.domain.scopes import NOT_FOR_KEYS, Scope
from services.gateway.door import scopes
from services.gateway.door.access import Requirements
from services.gateway.door.cors import Cors
from services.gateway.http import FORWARDED
from services.gateway.intake.messages import AlertRequest, BatchRequest
from services.gateway.pages import docs, widget
from tests.support.routes import route_table

DOCUMENT = docs.load()


@pytest.fixture
def access() -> dict[tuple[str, str], Requirements]:
    found = {key: requires for key, requires in route_table().items() if key[0] != "head"}
    del found["get", "/"]  # leads to /docs
    return {key: requires for key, requires in found.items() if not key[1].startswith("/console")}


def described() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_is_valid_openapi_3_1() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1")


def test_every_route_is_described_and_nothing_else(
    access: dict[tuple[str, str], Requirements],
) -> None:
    assert set(described()) == set(access)
    # As spec section 4 has them, a method and its paths a line.
    calls = Path(__file__).with_name("section_4.txt").read_text(encoding="utf-8").splitlines()
    wanted = {(how.lower(), path) for how, *paths in map(str.split, calls) for path in paths}
    assert wanted <= described().keys()


def test_each_operation_names_the_scope_of_its_route_and_who_has_it(
    access: dict[tuple[str, str], Requirements],
) -> None:
    keys = {
        "serviceKey": scopes.SERVICE,
        "adminKey": scopes.ADMIN,
        "ownKey": frozenset(Scope) - NOT_FOR_KEYS,
    }
    for key, operation in described().items():
        security = operation.get("security", [])
        scope = access[key].scope
        wanted = [{name: [scope]} for name, held in keys.items() if scope in held]
        assert security == wanted or (scope is None and {} in security), key


def test_no_operation_stands_in_the_files_of_two_tags() -> None:
    files = (docs.FOLDER / "openapi").glob("*.yaml")
    parts = [yaml.safe_load(file.read_text(encoding="utf-8"))["paths"] for file in files]
    assert sum(len(methods) for part in parts for methods in part.values()) == len(described())


def test_each_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for operation in described().values()]
    assert len(set(names)) == len(names)


def test_idempotency_is_described_where_it_is_honoured() -> None:
    promised = {
        key
        for key, operation in described().items()
        if {"$ref": "#/components/parameters/IdempotencyKey"} in operation.get("parameters", [])
    }
    honoured = {(route.method.lower(), route.path) for route in FORWARDED if route.once}
    ours = ("/api/alerts", "/api/alerts/batch", "/api/alerts/from/{sender}")
    assert promised == honoured | {("post", path) for path in ours}


@pytest.mark.parametrize(
    ("model", "name"), [(AlertRequest, "AlertRequest"), (BatchRequest, "AlertBatch")]
)
def test_our_own_bodies_are_described_as_they_are_checked(
    model: type[AlertRequest | BatchRequest], name: str
) -> None:
    schema = model.model_json_schema()
    told = DOCUMENT["components"]["schemas"][name]
    assert set(told["properties"]) == set(schema["properties"])
    assert set(told["required"]) == set(schema["required"])


def test_the_page_shows_every_operation_and_loads_nothing_from_outside() -> None:
    page = docs.render(DOCUMENT)
    assert page.count("<details") == len(described())
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert "<script" not in page


def test_the_page_has_a_line_to_try_each_call_with_that_a_shell_reads() -> None:
    page = unescape(docs.render(DOCUMENT))
    lines = re.findall(r"<h4>Try it</h4><pre>(.*?)</pre>", page, re.DOTALL)
    assert len(lines) == len(described())
    for line in lines:
        words = shlex.split(line)
        assert (words[0], words[3][:3]) == ("curl", "$A/")
    (alert,) = (line for line in lines if line.startswith('curl -X POST "$A/api/alerts" '))
    assert '-H "X-API-KEY: $SERVICE_API_KEY"' in alert
    json.loads(shlex.split(alert)[-1])


# The committed builds are what their names say, and are served as pages need them.

SITE = "https://www.ostoja-wnetrza.example"
BUDGET = 12 * 1024
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|\bcookie\b"
)

Client = TestClient[web.Request, web.Application]


class _Open:
    def guard(self, *_: Any) -> None:
        """Ask for nothing."""


@pytest.fixture
async def gateway(aiohttp_client: AiohttpClient) -> Client:
    app = create_app(internal_key=None)
    widget.add_routes(app, cast("Any", _Open()), "https://leads.example.pl")
    app.on_response_prepare.append(Cors(SITE, https=True).finish)
    return await aiohttp_client(app, auto_decompress=False)


def test_each_build_is_named_by_its_hash_and_within_the_budget() -> None:
    for build in widget.builds():
        assert build.name == hashlib.sha256(build.content).hexdigest()[:16] + ".js"
        assert len(gzip.compress(build.content, 9)) <= BUDGET
        assert not FORBIDDEN.search(build.content.decode())
    on_disk = {path.name for path in widget.FOLDER.iterdir()} - {"builds.toml"}
    assert on_disk == {build.name for build in widget.builds()}


async def test_a_build_is_kept_for_a_year_by_any_page_and_may_be_checked(gateway: Client) -> None:
    newest = widget.builds()[-1]
    for origin in (SITE, "https://other.example"):
        answer = await gateway.get(f"/widget/{newest.name}", headers={"Origin": origin})
        assert answer.status == 200
        assert await answer.read() == newest.compressed
        assert gzip.decompress(newest.compressed) == newest.content
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert answer.headers.getall("Vary") == ["Accept-Encoding"]  # one copy for all pages
    plain = await gateway.get(f"/widget/{newest.name}", headers={"Accept-Encoding": "identity"})
    assert await plain.read() == newest.content


async def test_the_newest_script_is_asked_for_again_after_five_minutes(gateway: Client) -> None:
    answer = await gateway.get("/widget.js")
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    again = await gateway.get("/widget.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    assert await again.read() == b""
    changed = await gateway.get("/widget.js", headers={"If-None-Match": 'W/"older.js"'})
    assert changed.status == 200


async def test_the_description_has_what_a_script_tag_needs(gateway: Client) -> None:
    newest = widget.builds()[-1]
    described = json.loads(await (await gateway.get("/widget.json")).read())
    digest = hashlib.sha384(newest.content).digest()
    assert described == {
        "url": f"https://leads.example.pl/widget/{newest.name}",
        "integrity": f"sha384-{b64encode(digest).decode()}",
        "bytes": len(newest.content),
    }


async def test_nothing_but_the_builds_is_served_from_their_folder(gateway: Client) -> None:
    for name in ("builds.toml", "0000000000000000.js", "..%2Fwidget.py", ""):
        assert (await gateway.get(f"/widget/{name}")).status == 404
