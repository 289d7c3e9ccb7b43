"""Leads are found by words: of their facts, and of what the person said."""

from pathlib import Path

from alembic import op

from libs.common.database.migrate import create_index_concurrently

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("ALTER TABLE lead ADD COLUMN IF NOT EXISTS heard text NOT NULL DEFAULT ''")
    op.execute(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
    # gin_trgm_ops is of pg_trgm, which `setup` puts into this schema: its owner may not.
    create_index_concurrently(
        "lead_words", "lead USING gin (lead_words(known, heard) gin_trgm_ops)"
    )
