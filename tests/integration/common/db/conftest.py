from tests.support.loops import BOTH, Factories


def pytest_asyncio_loop_factories() -> Factories:
    return BOTH
