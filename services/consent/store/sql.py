"""The statements of queries.sql. Whoever runs one owns the transaction."""

from libs.common.database.queries import Queries

CELLS = ("email", "ip_address", "user_agent", "reason", "session_id", "evidence")
"""Sealed columns of the trail."""
run = Queries(__file__, "queries.sql", json=["details"])
