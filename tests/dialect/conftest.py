from tests.support.loops import BOTH, Factories

# SQLAlchemy's plugin takes over the whole of pytest: test_suite.py starts one of its own for it.
collect_ignore = ["suite"]


def pytest_asyncio_loop_factories() -> Factories:
    return BOTH
