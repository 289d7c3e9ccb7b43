"""`make schema` writes what these tests compare."""

import os
from pathlib import Path

import pytest

from deploy.up.environment import ROOT, WITH_TABLES
from tests.conftest import NewDatabase
from tests.support import schemas
from tests.support.databases import SERVICES

PAGES = {name: SERVICES / name / "store" / "schema.sql" for name in WITH_TABLES}


def compare(path: Path, text: str) -> None:
    if os.environ.get("WRITE"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("service", PAGES)
async def test_schema_sql_is_what_the_migrations_make(database: NewDatabase, service: str) -> None:
    compare(PAGES[service], schemas.page(await database(service)))


def test_the_page_of_the_data_shows_every_table() -> None:
    pages = {name: path.read_text() for name, path in PAGES.items()}
    compare(ROOT / "docs" / "data.md", schemas.pictures(pages))
