from tests.support.loops import BOTH


def pytest_asyncio_loop_factories() -> dict[str, object]:
    return BOTH
