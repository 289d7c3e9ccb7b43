"""Every address that was named in a conversation, so that whose it is finds it again."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UP = r"""
CREATE TABLE chat_address (
    email text NOT NULL,
    conversation_id uuid NOT NULL REFERENCES chat_conversations ON DELETE CASCADE,
    PRIMARY KEY (email, conversation_id)
);
CREATE INDEX chat_address_conversation ON chat_address (conversation_id);
INSERT INTO chat_address (email, conversation_id)
SELECT lower(found[1]), conversation_id
FROM chat_message, regexp_matches(body, '([\w.+%-]{1,64}@[\w.-]+\.[[:alpha:]]{2,24})', 'g') AS found
UNION SELECT email, id FROM chat_conversations WHERE email IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE chat_address")
