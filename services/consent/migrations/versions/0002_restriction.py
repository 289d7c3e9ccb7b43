"""Restriction of processing (Art. 18 GDPR): since when, and what was held then, sealed."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE restriction (
            subject_id uuid PRIMARY KEY REFERENCES data_subject,
            since timestamptz NOT NULL DEFAULT now(),
            kept bytea
        )
    """)
