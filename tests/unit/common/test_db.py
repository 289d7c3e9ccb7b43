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

from libs.common import db


def failed(kind: type[DBAPIError], state: str | None, *, lost: bool = False) -> DBAPIError:
    orig = psycopg2.Error()
    if state is not None:
        orig = type("WithState", (Exception,), {"pgcode": state})()
    return kind("SELECT", None, orig, connection_invalidated=lost)


@pytest.mark.parametrize(
    "error",
    [
        failed(OperationalError, "57P03"),  # starting up
        failed(OperationalError, "57P01"),  # stopped by its administrator
        failed(OperationalError, "53300"),  # too many connections
        failed(DBAPIError, "08006"),
        failed(OperationalError, None),
        failed(InterfaceError, None),
        failed(IntegrityError, "23505", lost=True),
        TimeoutError(),
        DisconnectionError(),
    ],
    ids=repr,
)
def test_a_database_that_is_away_is_unavailable(error: BaseException) -> None:
    assert db.is_unavailable(error)


@pytest.mark.parametrize(
    "error",
    [
        failed(OperationalError, "57014"),  # statement_timeout
        failed(OperationalError, "40P01"),  # deadlock
        failed(IntegrityError, "23505"),
        failed(DBAPIError, None),
        ConnectionResetError(),  # of somebody else's connection
        OSError(),
        LookupError(),
    ],
    ids=repr,
)
def test_another_error_is_no_sign_of_it(error: BaseException) -> None:
    assert not db.is_unavailable(error)


def test_keys_of_different_names_differ_and_fit_a_bigint() -> None:
    keys = {db.advisory_key(f"alembic:{name}") for name in ("alerts", "consent", "followups")}
    assert len(keys) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)
