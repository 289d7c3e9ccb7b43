from libs.common import migrate
from services.alerts import store
from tests.conftest import NewDatabase


async def test_the_tables_of_the_code_are_those_of_the_migrations(database: NewDatabase) -> None:
    url = await database("alerts")
    assert migrate.differences(url.owner_url, store.metadata) == []
