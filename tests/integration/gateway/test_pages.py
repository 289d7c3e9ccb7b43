"""What a person who followed a mailed link sees when something is wrong."""

import pytest
from aiohttp import web

from libs.common.http.application import Problem
from tests.integration.gateway.conftest import NOBODY, Gateway, Owner, StartGateway
from tests.support.service import Answer

LINK = "/unsubscribe?token=a.b%22%3E&lang=pl"


def is_page(answer: Answer) -> bool:
    is_html = answer.headers["Content-Type"].startswith("text/html")
    return is_html and '<html lang="pl">' in answer.body


async def test_without_consent_the_page_is_html_and_the_withdrawal_can_be_repeated(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(CONSENT_URL=NOBODY)
    opened = await gateway.call("GET", LINK)
    assert opened.status == 503
    assert opened.headers["Retry-After"]
    assert is_page(opened)
    assert 'href="/unsubscribe?token=a.b%22%3E&amp;lang=pl"' in opened.body
    pressed = await gateway.send("POST", LINK, data={"List-Unsubscribe": "One-Click"})
    assert pressed.status == 503
    assert is_page(pressed)
    assert '<form method="post" action="/unsubscribe?token=a.b%22%3E&amp;lang=pl">' in pressed.body
    assert "form-action 'self'" in pressed.headers["Content-Security-Policy"]


@pytest.mark.parametrize("status", [400, 415, 500, 503])
async def test_an_error_of_consent_is_html_too(gateway: Gateway, owner: Owner, status: int) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        return Problem(status, detail="of consent").response()

    owner.handle = fail
    for path in ("/unsubscribe", "/opt-in/confirm", "/erasure/confirm", "/preferences"):
        answer = await gateway.send("POST", f"{path}?token=x", data={"purpose": "marketing"})
        assert answer.status == status
        assert is_page(answer)
        # Repeated without its purpose it would withdraw everything: the page asks again.
        assert ("<form" in answer.body) is (path != "/preferences")


async def test_the_api_stays_problem_json(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(CONSENT_URL=NOBODY)
    answer = await gateway.call("POST", "/api/unsubscribe", {"email": "a@example.com"})
    assert (answer.status, answer.body["status"]) == (503, 503)
