"""SQLAlchemy's own suite for dialects, with our driver and with the one that it stands on.

Untuned, some of its tests fail on PostgreSQL with whatever driver; so each test's outcome with
psycopg2 is what is asked of aiopg.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import psycopg2
import pytest
from psycopg2.extensions import ISOLATION_LEVEL_AUTOCOMMIT, make_dsn

from deploy.up.servers import Postgres

pytestmark = pytest.mark.dialect

ROOT = Path(__file__).parents[2]
SUITE = Path(__file__).parent / "suite"
SUITE_SECONDS = 600
NOT_OFFERED = "ServerSideCursorsTest"  # psycopg2's asynchronous connections have none

NewUrl = Callable[[str], str]


@pytest.fixture
def new_url(postgres: Postgres) -> Iterator[NewUrl]:
    """Give a database laid out as the suite wants it, by the driver that will use it."""
    made: list[str] = []

    def create(driver: str) -> str:
        name = f"suite_{driver}"
        execute(postgres.dsn, f"CREATE DATABASE {name}")
        made.append(name)
        dsn = make_dsn(postgres.dsn, dbname=name)
        execute(dsn, "CREATE SCHEMA test_schema", "CREATE SCHEMA test_schema_2")
        account = f"postgres:{postgres.password}@127.0.0.1:{postgres.port}"
        return f"postgresql+{driver}://{account}/{name}"

    yield create
    for name in made:
        execute(postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)")


def execute(dsn: str, *statements: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def start(url: str, report: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-c", "setup.cfg", "--confcutdir", "."),
            *("--dburi", url, "--junitxml", str(report)),
        ],
        cwd=SUITE,
        # Other plugins would see SQLAlchemy's classes and fixtures, which are not meant for them.
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcomes(report: Path) -> dict[str, str]:
    """Give each test's outcome; the names of driver and server are taken out of the test's."""
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        suite = re.sub(r"_postgresql\+[a-z0-9]+(_async)?[0-9_]*$", "", case.attrib["classname"])
        state = next((part.tag for part in case if part.tag != "properties"), "passed")
        found[f"{suite}::{case.attrib['name']}"] = state
    return found


def test_each_test_of_the_suite_ends_as_it_ends_with_psycopg2(
    new_url: NewUrl, tmp_path: Path
) -> None:
    reports = {driver: tmp_path / f"{driver}.xml" for driver in ("psycopg2", "aiopg")}
    runs = [start(new_url(driver), report) for driver, report in reports.items()]
    printed = [run.communicate(timeout=SUITE_SECONDS)[0] for run in runs]
    assert [run.returncode in {0, 1} for run in runs] == [True, True], printed
    expected = {
        test: outcome
        for test, outcome in outcomes(reports["psycopg2"]).items()
        if NOT_OFFERED not in test
    }
    assert sum(outcome == "passed" for outcome in expected.values()) > 900
    assert outcomes(reports["aiopg"]) == expected
