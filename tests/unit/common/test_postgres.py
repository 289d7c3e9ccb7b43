import psycopg2
import pytest
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    TimeoutError,  # noqa: A004 - the pool's
)

from libs.common.database import postgres


def failed(kind: type[DBAPIError], state: str | None, *, lost: bool = False) -> DBAPIError:
    orig = psycopg2.Error()
    if state is not None:
        orig = type("WithState", (Exception,), {"pgcode": state})()
    return kind("SELECT", None, orig, connection_invalidated=lost)


@pytest.mark.parametrize(
    "error",
    [
        *(failed(OperationalError, state) for state in ("57P03", "57P01", "53300", "08006")),
        # A time-out, deadlocks, a standby, a right, column or table that is missing.
        *(failed(DBAPIError, state) for state in ("57014", "40P01", "40001", "55P03", "25006")),
        *(failed(DBAPIError, state) for state in ("42501", "42703", "42P01", "XX000")),
        failed(OperationalError, None),
        failed(InterfaceError, None),
        failed(IntegrityError, "23505", lost=True),
        TimeoutError(),
        DisconnectionError(),
    ],
    ids=repr,
)
def test_an_error_that_is_not_the_data_s_is_transient(error: BaseException) -> None:
    assert postgres.is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        failed(IntegrityError, "23505"),
        failed(DBAPIError, "22P02"),
        failed(DBAPIError, None),
        ConnectionResetError(),  # of somebody else's connection
        OSError(),
        LookupError(),
    ],
    ids=repr,
)
def test_a_data_error_is_not_transient(
    error: BaseException,
) -> None:
    assert not postgres.is_transient(error)


def test_a_block_ends_quietly_only_when_the_database_is_unavailable() -> None:
    with postgres.through_outages() as outage:
        raise TimeoutError
    assert isinstance(outage.error, TimeoutError)
    with pytest.raises(ValueError, match="another"), postgres.through_outages() as outage:
        raise ValueError("another")
    assert outage.error is None
