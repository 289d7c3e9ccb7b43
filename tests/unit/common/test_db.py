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
    assert db.may_pass(error)


@pytest.mark.parametrize("state", ["57014", "40P01", "40001", "55P03"])
def test_a_statement_that_was_too_slow_or_in_a_lock_may_pass_later(state: str) -> None:
    assert db.may_pass(failed(OperationalError, state))


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


def test_a_violated_constraint_does_not_pass_by_itself() -> None:
    assert not db.may_pass(failed(IntegrityError, "23505"))
    assert not db.may_pass(LookupError())


def test_keys_of_different_names_differ_and_fit_a_bigint() -> None:
    keys = {db.advisory_key(f"alembic:{name}") for name in ("alerts", "consent", "followups")}
    assert len(keys) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)
