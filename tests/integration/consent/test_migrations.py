from services.consent.store import tables
from tests.support.databases import DatabaseUrl, differences


async def test_the_migrated_schema_matches_the_tables(
    consent_database: DatabaseUrl,
) -> None:
    assert differences(consent_database.owner_url, tables.metadata) == []
