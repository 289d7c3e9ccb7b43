"""What the tests of the client towards the owners share."""

import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from libs.common.http.application import Problem
from services.gateway.proxy.upstream import Upstream
from tests.support.scripted import ScriptedServer

ANSWERS = tomllib.loads(Path(__file__).with_name("upstream.toml").read_text(encoding="utf-8"))
Start = Callable[..., Awaitable[tuple[ScriptedServer, Upstream]]]


async def get(upstream: Upstream, path: str = "/x") -> tuple[int, bytes]:
    return await ask(upstream, "GET", path)


async def ask(
    upstream: Upstream, method: str, path: str = "/x", body: bytes | None = None
) -> tuple[int, bytes]:
    async with upstream.ask(method, path, body=body) as answer:
        return answer.status, b"".join([part async for part in answer.parts()])


async def refusal(asked: Awaitable[object]) -> tuple[int, str]:
    """Give the status, and the reason in the detail, of what must be a problem."""
    with pytest.raises(Problem) as caught:
        await asked
    problem = caught.value
    assert problem.headers["Retry-After"] == "2"
    assert problem.detail is not None
    assert "(owner)" in problem.detail
    return problem.status, problem.detail.partition(" is ")[2].partition(";")[0]
