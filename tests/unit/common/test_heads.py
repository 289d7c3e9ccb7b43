"""Headers have bounds before anything reads them, and each that is read has one."""

import ast
import importlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import hdrs
from aiohttp import web as aiohttp_web
from aiohttp.test_utils import TestClient

from libs.common.http import application
from libs.common.http.application import MOST_BYTES, media_type
from services.gateway.pages import console
from services.gateway.proxy import forward as proxy

ROOT = Path(__file__).parents[3]
Client = TestClient[aiohttp_web.Request, aiohttp_web.Application]
SERVERS = (
    "libs/common/http",
    "libs/domain/acts.py",
    "services/*/http",
    "services/gateway",
)
OTHERS = {
    "libs/common/http/client.py",  # answers of our own services
    "services/gateway/proxy/upstream.py",
    "services/gateway/health.py",
}
# Of responses, and those that aiohttp's parser in C has read and found to be numbers.
NOT_READ = {"Retry-After", "Allow", "Content-Length", "Server", "Access-Control-Allow-Origin"}


def read_in(path: Path) -> Iterator[str]:
    """Yield each header that a module reads by its name."""
    if "headers" not in path.read_text(encoding="utf-8"):
        return
    module = importlib.import_module(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    )
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Call(func=ast.Attribute(value, "get" | "getall"), args=[name, *_]):
                pass
            case ast.Subscript(value=value, slice=name, ctx=ast.Load()):
                pass
            case ast.Compare(left=name, ops=[ast.In() | ast.NotIn()], comparators=[value]):
                pass
            case _:
                continue
        if ast.unparse(value).endswith("headers"):
            try:
                yield str(eval(ast.unparse(name), vars(module)))  # noqa: S307 - our own source
            except NameError:  # the variable of a loop: see below
                continue


def test_every_header_that_is_read_has_a_bound() -> None:
    paths = {path for each in SERVERS for path in ROOT.glob(each)}
    files = {path for each in paths for path in (each.rglob("*.py") if each.is_dir() else [each])}
    found = {
        name.lower()
        for path in files
        if str(path.relative_to(ROOT)) not in OTHERS
        for name in read_in(path)
    }
    found |= {str(name).lower() for name in (*proxy.FORWARDED, *console.HEADERS)}
    assert len(found) > 25
    bounded = {name.decode() for name in MOST_BYTES}
    assert found - bounded - {name.lower() for name in NOT_READ} == set()


@pytest.fixture
async def client(aiohttp_client: Callable[..., Awaitable[Client]]) -> Client:
    app = application.create_app(internal_key=None)

    async def read(request: aiohttp_web.Request) -> aiohttp_web.Response:
        return application.json_response({"read": len(await request.read())})

    app.router.add_post("/", read)
    return await aiohttp_client(app)


@pytest.mark.parametrize("name", sorted(MOST_BYTES))
async def test_a_header_over_its_bound_is_431_and_the_connection_goes_on(
    client: Client, name: bytes
) -> None:
    most = MOST_BYTES[name]
    if most >= 8190 or name in {b"host", b"expect", b"transfer-encoding", b"connection"}:
        pytest.skip("aiohttp refuses or uses it itself")
    for size, status in ((most, 200), (most + 1, 431)):
        headers = {name.decode().upper(): "x" * size}
        async with client.post("/", data=b"hello", headers=headers) as response:
            answer = await response.json(content_type=None)
            assert response.status == status, answer
            assert response.headers[application.REQUEST_ID]
    assert answer["detail"] == f"{name.decode().upper()} may have {most} bytes at most"


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("application/json", "application/json"),
        (" Application/JSON ; charset=utf-8", "application/json"),
        ("application/json;;;;", "application/json"),
        ("application/jsonp", "application/jsonp"),
        ("", ""),
        (None, ""),
    ],
)
def test_the_media_type_is_what_stands_before_the_semicolon(header: str | None, kind: str) -> None:
    assert media_type({} if header is None else {str(hdrs.CONTENT_TYPE): header}) == kind
