"""Connects to a database's primary without asyncio: for migrations and for a look at the schema."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg2
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool

from libs.common.database.postgres import CONNECT_SECONDS
from libs.common.process import sockets


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    with engine(url).begin() as connection:
        yield connection


def engine(url: str) -> Engine:
    # Use psycopg2, because alembic is synchronous; the URL may name another driver.
    return create_engine(
        "postgresql+psycopg2://", poolclass=NullPool, creator=partial(connect_primary, url)
    )


def connect_primary(url: str, **options: Any) -> Any:
    """Connect with psycopg2 to the primary among the hosts of a URL.

    Not by libpq's list: it ends at a standby that has not received the database or the role yet.
    """
    hosts = sockets.each_host(f"postgresql{url[url.index('://') :]}")
    for host in hosts:
        try:
            return psycopg2.connect(
                host,
                connect_timeout=int(CONNECT_SECONDS),
                target_session_attrs="primary",
                **options,
            )
        except psycopg2.OperationalError as error:
            if host == hosts[-1]:
                raise
            sys.stderr.write(f"PostgreSQL: {str(error).strip()}; trying the next host\n")
    return None
