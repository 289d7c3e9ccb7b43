from services.console.store import tables
from tests.conftest import NewDatabase
from tests.support.databases import differences


async def test_the_migrated_schema_matches_the_tables(database: NewDatabase) -> None:
    found = await database("console")
    assert differences(found.owner_url, tables.metadata) == []
