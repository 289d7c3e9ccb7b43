"""A contact may have many leads, and a conversation many requests."""

from alembic import op

from libs.common.database.migrate import create_index_concurrently, execute_beside

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE lead ADD COLUMN IF NOT EXISTS previous jsonb")
    create_index_concurrently("lead_conversation", "lead (conversation_id, topic)")
    create_index_concurrently(
        "lead_previous", "lead ((previous ->> 'id')) WHERE previous IS NOT NULL", unique=True
    )
    create_index_concurrently("lead_contact_many", "lead_contact (contact, lead_id)", unique=True)
    execute_beside(__file__)
