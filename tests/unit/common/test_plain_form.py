"""Plain forms as bytes: what is a field, and what is refused."""

from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from libs.common.http import application, plain_form
from libs.common.http.application import Problem

MULTIPART = "multipart/form-data; boundary=xyz"
NAMED = 'Content-Disposition: form-data; name="a"'


def multipart(*parts: str) -> bytes:
    return "".join(f"--xyz\r\n{part}\r\n" for part in parts).encode() + b"--xyz--\r\n"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (f"{NAMED}\r\n\r\nŁazienka\r\ni kuchnia", ("a", "Łazienka\r\ni kuchnia")),
        (f"{NAMED}\r\n\r\n", ("a", "")),
        (f"{NAMED}\r\n\r\n--xy\r\n--xyzz", ("a", "--xy\r\n--xyzz")),
        (f"{NAMED}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n1", ("a", "1")),
        ('content-disposition:form-data;name="łóżko; x"\r\n\r\n1', ("łóżko; x", "1")),
        (f"{NAMED}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n1", ("a", "1")),
    ],
)
def test_a_part_is_a_field(part: str, found: tuple[str, str]) -> None:
    assert plain_form.fields(multipart(part, part), MULTIPART) == [found, found]


def test_a_boundary_may_be_quoted_and_an_empty_form_has_no_fields() -> None:
    assert plain_form.fields(b"--xyz--\r\n", 'multipart/form-data; boundary="xyz"') == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (multipart("Content-Type: multipart/mixed; boundary=in\r\n\r\n--in--"), 400),
        (multipart(f"{NAMED}\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in--"), 400),
        (multipart(f"{NAMED}\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ=="), 400),
        (multipart('Content-Disposition: attachment; name="a"\r\n\r\n1'), 400),
        (multipart(f"{NAMED}{';' * 2000}\r\n\r\n1"), 400),
        (multipart(f"{NAMED}\r\n" + "X: 1\r\n" * 9 + "\r\n1"), 400),
        (multipart(f"{NAMED}\r\n\r\n1").removesuffix(b"--\r\n"), 400),
        (multipart("Content-Disposition: form-data\r\n\r\nno name"), 400),
        (b"--xyz", 400),
        (b"", 400),
        (b"--xyz\r\n" + NAMED.encode() + b"\r\n\r\n\xff\r\n--xyz--\r\n", 400),
        (multipart(f"{NAMED}; filename=x\r\n\r\n1"), 422),
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
