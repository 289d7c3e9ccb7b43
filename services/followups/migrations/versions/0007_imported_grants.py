"""All agreements of imported leads that consent was told of, not only each lead's last."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The reference comes last: while it is there uncommitted, no conversation is written.
TABLE = """
CREATE TABLE imported_grant (
    id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL
);
INSERT INTO imported_grant (id, conversation_id)
SELECT imported_grant, id FROM chat_conversations WHERE imported_grant IS NOT NULL;
CREATE INDEX imported_grant_conversation ON imported_grant (conversation_id);
ALTER TABLE imported_grant
    ADD FOREIGN KEY (conversation_id) REFERENCES chat_conversations ON DELETE CASCADE;
ALTER TABLE chat_conversations DROP COLUMN imported_grant;
"""


def upgrade() -> None:
    op.execute(TABLE)
