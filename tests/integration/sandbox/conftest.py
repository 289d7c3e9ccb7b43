from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.support.ports import Ports
from tests.support.sandbox import Sandbox, running_sandbox


@pytest.fixture(scope="module")
def _process(ports: Ports) -> Iterator[Sandbox]:
    with running_sandbox(ports) as sandbox:
        yield sandbox


@pytest.fixture
async def sandbox(_process: Sandbox) -> Sandbox:
    await _process.reset()
    return _process


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(sandbox.url) as session:
        yield session
