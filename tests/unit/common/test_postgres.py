import psycopg2
import pytest
from sqlalchemy import exc

from libs.common.database import postgres


def failed(kind: type[exc.DBAPIError], state: str | None, *, lost: bool = False) -> exc.DBAPIError:
    orig = psycopg2.Error()
    if state is not None:
        orig = type("WithState", (Exception,), {"pgcode": state})()
    return kind("SELECT", None, orig, connection_invalidated=lost)


@pytest.mark.parametrize(
    "error",
    [
        *(failed(exc.OperationalError, state) for state in ("57P03", "57P01", "53300", "08006")),
        # A time-out, deadlocks, a standby, a right, column or table that is missing.
        *(failed(exc.DBAPIError, state) for state in ("57014", "40P01", "40001", "55P03", "25006")),
        *(failed(exc.DBAPIError, state) for state in ("42501", "42703", "42P01", "XX000")),
        failed(exc.OperationalError, None),
        failed(exc.InterfaceError, None),
        failed(exc.IntegrityError, "23505", lost=True),
        exc.TimeoutError(),
        exc.DisconnectionError(),
    ],
    ids=repr,
)
def test_an_error_that_is_not_the_data_s_is_transient(error: BaseException) -> None:
    assert postgres.is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        failed(exc.IntegrityError, "23505"),
        failed(exc.DBAPIError, "22P02"),
        failed(exc.DBAPIError, None),
        ConnectionResetError(),  # of somebody else's connection
        OSError(),
        LookupError(),
    ],
    ids=repr,
)
def test_a_data_error_is_not_transient(error: BaseException) -> None:
    assert not postgres.is_transient(error)


def test_a_block_ends_quietly_only_when_the_database_is_unavailable() -> None:
    with postgres.through_outages() as outage:
        raise exc.TimeoutError
    assert isinstance(outage.error, exc.TimeoutError)
    with pytest.raises(ValueError, match="another"), postgres.through_outages() as outage:
        raise ValueError("another")
    assert outage.error is None
