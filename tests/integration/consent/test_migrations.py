from libs.common import migrate
from services.consent.store import tables
from tests.support.databases import DatabaseUrl


async def test_the_migrated_schema_is_the_one_the_code_describes(
    consent_database: DatabaseUrl,
) -> None:
    assert migrate.differences(consent_database.owner_url, tables.metadata) == []
