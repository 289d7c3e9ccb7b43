import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from aiohttp import web as aiohttp_web
from aiohttp.test_utils import TestClient
from pydantic import AfterValidator

from libs.common.http import application
from libs.common.process import logs

Client = TestClient[aiohttp_web.Request, aiohttp_web.Application]
JSON = {"Content-Type": "application/json"}


def _short(text: str) -> str:
    if len(text) > 5:
        raise ValueError("at most 5 letters")
    return text


class Body(application.Model):
    count: int
    text: Annotated[str, AfterValidator(_short)] = ""


@pytest.fixture
async def client(aiohttp_client: Callable[..., Awaitable[Client]]) -> Client:
    app = application.create_app(internal_key="k" * 16)

    async def echo(request: aiohttp_web.Request) -> aiohttp_web.Response:
        body = await application.parse(request, Body)
        return application.json_response({"count": body.count, "request_id": logs.request_id.get()})

    async def fail(_: aiohttp_web.Request) -> aiohttp_web.Response:
        raise RuntimeError("secret detail")

    app.router.add_post("/echo/{email}", echo)
    app.router.add_get("/fail", fail)
    return await aiohttp_client(app, headers={application.INTERNAL_KEY: "k" * 16})


async def post(client: Client, body: bytes | str, **headers: str) -> tuple[int, dict[str, Any]]:
    async with client.post("/echo/a@b.pl", data=body, headers=JSON | headers) as response:
        return response.status, await response.json(content_type=None)


async def test_a_good_body_is_read_and_a_sane_request_id_kept(client: Client) -> None:
    status, answer = await post(client, '{"count": 3}', **{application.REQUEST_ID: "req-12345678"})
    assert (status, answer) == (200, {"count": 3, "request_id": "req-12345678"})


async def test_a_request_id_that_could_forge_a_log_line_is_replaced(client: Client) -> None:
    _, answer = await post(client, '{"count": 3}', **{application.REQUEST_ID: "x" * 65})
    assert answer["request_id"] != "x" * 65


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        (b'{"count": 1, "text": "\xff"}', 400),
        ('{"count": "1"}', 422),
        ('{"count": 1, "unknown": 2}', 422),
        ('{"count": 1, "text": "\\u0000"}', 422),
        ('{"count": 1, "text": "\\ud800"}', 422),
        ('{"count": NaN}', 422),
        ('{"count": 1e999}', 422),
        ('{"count": 1, "count": 2}', 422),
        ("[" * 100_000, 422),
        ("[1]", 422),
        (json.dumps({"count": 1, "text": "x" * application.MAX_BODY}), 413),
    ],
)
async def test_bad_input_gets_problem_json(client: Client, body: bytes | str, status: int) -> None:
    async with client.post("/echo/a@b.pl", data=body, headers=JSON) as response:
        answer = await response.json(content_type="application/problem+json")
    assert response.status == status
    assert answer["status"] == status


@pytest.mark.parametrize("value", ['"ż\\ud800"', '"\\u0000"', "NaN", '{"b": 1, "b": 2}'])
def test_what_no_parser_may_get_is_refused_without_a_model(value: str) -> None:
    with pytest.raises(application.Problem) as refused:
        application.check_json(f'{{"a": {value}}}'.encode())
    assert refused.value.status == 422


REFUSED = [
    *("1e40", "1e308", "-1E308", "1e400", "1e-40", "1e-308", "1e-400", "4.9e-324", "1e999999999"),
    *("123456789012345678.5", "0.1000000000000000055511151231257827", f"0.{'0' * 500}1"),
    *(f"1{'0' * 40}", "9" * 5000, "9" * 300_000, f"1e{'9' * 300_000}"),
]  # fmt: skip


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: number[:20])
def test_a_number_that_would_grow_or_change_is_refused_by_name(number: str) -> None:
    with pytest.raises(application.Problem) as refused:
        application.check_json(f'{{"a": {{"b": [1, {number}]}}}}'.encode())
    assert refused.value.status == 422
    assert [field for field, _ in refused.value.errors] in ([], ["a.b.1"])
    assert "number" in str(refused.value.response().text)


async def test_every_bad_field_is_named_at_once(client: Client) -> None:
    _, answer = await post(client, '{"count": "1", "text": 2, "else": 3}')
    assert {error["field"] for error in answer["errors"]} == {"count", "text", "else"}


async def test_our_validators_errors_use_our_words(client: Client) -> None:
    _, answer = await post(client, '{"count": 1, "text": "too long"}')
    assert answer["errors"] == [{"field": "text", "message": "at most 5 letters"}]


async def test_another_content_type_is_415(client: Client) -> None:
    async with client.post("/echo/x", data="count=1", headers={"Content-Type": "text/plain"}) as r:
        assert r.status == 415


async def test_without_the_internal_key_only_health_answers(client: Client) -> None:
    async with client.get("/fail", headers={application.INTERNAL_KEY: "wrong"}) as response:
        assert response.status == 401
    async with client.get("/health", headers={application.INTERNAL_KEY: "wrong"}) as response:
        assert response.status == 200


async def test_an_internal_error_shows_only_the_request_id(client: Client) -> None:
    async with client.get("/fail", headers={application.REQUEST_ID: "req-12345678"}) as response:
        text = await response.text()
    assert response.status == 500
    assert response.headers[application.REQUEST_ID] == "req-12345678"
    assert "secret detail" not in text


async def test_no_service_names_its_software(client: Client) -> None:
    for path in ("/health", "/fail", "/nowhere"):
        async with client.get(path) as response:
            assert "Server" not in response.headers
