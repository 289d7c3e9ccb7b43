"""Plain forms as bytes: what is a field, and what is refused."""

import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from libs.common.http import application, plain_form
from libs.common.http.application import Problem

PARTS = tomllib.loads(Path(__file__).with_name("plain_form.toml").read_text(encoding="utf-8"))
MULTIPART = "multipart/form-data; boundary=xyz"
NAMED = 'Content-Disposition: form-data; name="a"'


def multipart(*parts: str) -> bytes:
    return "".join(f"--xyz\r\n{part}\r\n" for part in parts).encode() + b"--xyz--\r\n"


@pytest.mark.parametrize(("part", "found"), PARTS["fields"].items())
def test_a_part_is_a_field(part: str, found: list[str]) -> None:
    part = part.replace("<a>", NAMED)
    assert plain_form.fields(multipart(part, part), MULTIPART) == [tuple(found)] * 2


def test_a_boundary_may_be_quoted_and_an_empty_form_has_no_fields() -> None:
    assert plain_form.fields(b"--xyz--\r\n", 'multipart/form-data; boundary="xyz"') == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *((multipart(part.replace("<a>", NAMED)), each) for part, each in PARTS["refused"].items()),
        (multipart(f"{NAMED}{';' * 2000}\r\n\r\n1"), 400),
        (multipart(f"{NAMED}\r\n\r\n1").removesuffix(b"--\r\n"), 400),
        (b"--xyz", 400),
        (b"", 400),
        (b"--xyz\r\n" + NAMED.encode() + b"\r\n\r\n\xff\r\n--xyz--\r\n", 400),
        (multipart(*[f"{NAMED}\r\n\r\n1"] * (plain_form.MOST_FIELDS + 1)), 422),
    ],
)
def test_what_is_no_field_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(Problem) as refused:
        plain_form.fields(body, MULTIPART)
    assert refused.value.status == status


@pytest.mark.parametrize("content_type", ["multipart/form-data", f"{MULTIPART}{'x' * 300}"])
def test_a_boundary_that_is_none_is_refused(content_type: str) -> None:
    with pytest.raises(Problem) as refused:
        plain_form.fields(multipart(f"{NAMED}\r\n\r\n1"), content_type)
    assert refused.value.status == 400


def test_what_is_refused_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Problem):
        plain_form.fields(b"anna@example.com", MULTIPART)
    assert caplog.text == ""


Client = TestClient[web.Request, web.Application]


async def test_a_route_reads_both_kinds_and_no_other(
    aiohttp_client: Callable[..., Awaitable[Client]],
) -> None:
    app = application.create_app(internal_key=None)

    async def echo(request: web.Request) -> web.Response:
        return application.json_response(list((await plain_form.read(request)).items()))

    app.router.add_post("/", echo)
    client = await aiohttp_client(app)
    for body, kind, status in (
        (b"a=%C5%82&a=2", "application/x-www-form-urlencoded; charset=punycode", 200),
        ("a=ł&a=2".encode(), "application/x-www-form-urlencoded", 200),
        (multipart(f"{NAMED}\r\n\r\nł", f"{NAMED}\r\n\r\n2"), MULTIPART, 200),
        (b"a=1", "text/plain", 415),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"", "text/plain", 200),
    ):
        async with client.post("/", data=body, headers={"Content-Type": kind}) as response:
            answer = await response.json(content_type=None)
            assert response.status == status, (kind, answer)
            if status == 200:
                assert answer == ([["a", "ł"], ["a", "2"]] if body else [])
