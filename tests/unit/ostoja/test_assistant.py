"""The tools of `ostoja mcp`, on answers that a sound system does not give."""

import re
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from ostoja import assistant, where
from tests.unit.ostoja.conftest import Gateway
from tests.unit.ostoja.test_commands import BALANCED, page, row


async def call(gateway: Gateway, tool: str, **given: Any) -> tuple[bool, str]:
    session = where.session(url=gateway.url, key="the-key", operator="ola", as_json=False)
    async with Client(assistant.server(session)) as client:
        done: Any = await client.call_tool(tool, given)
    return done.is_error, done.content[0].text


async def test_a_check_that_fails_says_so_with_its_figures(gateway: Gateway) -> None:
    gateway.answers = [(200, BALANCED | {"ok": False, "accepted": 10})]
    is_error, text = await call(gateway, "ledger_check")
    assert is_error
    assert "1 not accounted for" in text
    assert '"accepted": 10' in text


async def test_a_list_ends_at_its_limit_and_no_answer_hides_a_line(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers = [(200, page(*(row(error_message="a\nb\u2028c") for _ in range(30))))]
    for given, lines in ({"limit": 3}, 3), ({}, 20):
        assert len((await call(gateway, "alerts", **given))[1].splitlines()) == lines
    gateway.answers = [(200, page())]
    assert await call(gateway, "alerts", state="pending") == (False, "none")
    assert gateway.asked[-1][1].startswith("/api/dlq/pending?")
    assert capsys.readouterr().out == ""  # it belongs to the protocol


def test_there_are_ten_at_most_and_the_page_has_each() -> None:
    names = [row["name"] for row in assistant._TABLE["tools"]]
    page = (Path(__file__).parents[3] / "docs" / "assistant.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` ", page, re.MULTILINE) == names
    assert len(names) <= 10
