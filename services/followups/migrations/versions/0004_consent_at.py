"""How the consent of a lead stands is what consent says, not what was said in the chat."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE lead ADD COLUMN consent_at timestamptz")
    op.execute("COMMENT ON COLUMN lead.consent_at IS 'of consent''s last word on may_mail'")
    # A yes in the chat that nobody has confirmed was noted as given.
    op.execute(
        "UPDATE lead SET known = known - 'may_mail', notified = notified - 'may_mail' "
        "WHERE known ->> 'may_mail' = 'given'"
    )
