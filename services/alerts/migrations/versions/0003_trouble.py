"""How the breakers of all processes stand, what is in trouble since when, the way to a fallback."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE breaker (
    target text NOT NULL,
    process uuid NOT NULL,
    state text NOT NULL,
    failures integer NOT NULL,
    next_trial_at timestamptz,
    paused boolean NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    reset_at timestamptz,
    reset_by text,
    PRIMARY KEY (target, process),
    CONSTRAINT breaker_state_known CHECK (state IN ('closed', 'open', 'half_open'))
);
COMMENT ON COLUMN breaker.seen_at IS 'when the process last said so; one that is silent is dead';

CREATE TABLE trouble (
    kind text NOT NULL,
    target text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    number bigint NOT NULL DEFAULT 0,
    told_at timestamptz,
    digest uuid,
    PRIMARY KEY (kind, target),
    CONSTRAINT trouble_kind_known CHECK (kind IN ('breaker', 'pending', 'in_doubt', 'unread'))
);
COMMENT ON TABLE trouble IS 'what stands; breaker: it opened, and nothing has got through since';
COMMENT ON COLUMN trouble.digest IS 'the alert that told a person of it';

CREATE INDEX delivery_critical ON delivery (target, created_at)
    WHERE state = 'pending' AND severity = 'critical';
"""


def upgrade() -> None:
    op.execute(TABLES)
