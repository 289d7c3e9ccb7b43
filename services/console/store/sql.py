"""The statements of queries.sql."""

from libs.common.database.queries import Queries

run = Queries(__file__, "queries.sql", json=["filter", "people"])
