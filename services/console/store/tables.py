"""The tables of the console; the migrations have their constraints and rights."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from libs.common.messaging import outbox

metadata = sa.MetaData()
outbox.table(metadata)
_timestamptz = sa.DateTime(timezone=True)
_now = sa.text("now()")
_none = sa.text("'{}'")

# Append-only; see migration 0001. `count`: of rows, where one act changed, or showed, several.
staff_action = sa.Table(
    "staff_action",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("actor_kind", sa.Text, nullable=False),
    sa.Column("actor_id", sa.Text, nullable=False),
    sa.Column("actor_name", sa.Text),
    sa.Column("roles", ARRAY(sa.Text), nullable=False, server_default=_none),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("object_kind", sa.Text, nullable=False),
    sa.Column("object_ref", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger),
    sa.Column("client_address", sa.Text),
    sa.Index("staff_action_at", "at"),
    sa.Index("staff_action_actor", "actor_kind", "actor_id", "at"),
    sa.Index("staff_action_action", "action", "at"),
)

api_key = sa.Table(
    "api_key",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    sa.Column("limits", ARRAY(sa.Text), nullable=False),
    sa.Column("networks", ARRAY(sa.Text), nullable=False),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", _timestamptz, nullable=False),
    sa.Column("revoked_at", _timestamptz),
    sa.Column("last_used_at", _timestamptz),
    sa.Column("calls", sa.BigInteger, nullable=False, server_default="0"),
)

# `added_in`: the version that brought it; `until`: when it ends before its key, after a rotation.
api_key_digest = sa.Table(
    "api_key_digest",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("key_id", sa.ForeignKey(api_key.c.id), nullable=False),
    sa.Column("until", _timestamptz),
    sa.Column("added_in", sa.BigInteger, nullable=False),
    sa.Index("api_key_digest_key", "key_id"),
)

# Append-only: a version that is not here comes from a database that this one was restored over.
key_version = sa.Table(
    "key_version",
    metadata,
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("at", _timestamptz, nullable=False, server_default=_now),
    sa.Index("key_version_version", "version"),
)

key_reader = sa.Table(
    "key_reader",
    metadata,
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("instance", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("seen_at", _timestamptz, nullable=False, server_default=_now),
)

# A version that a gateway has and that key_version lacks, with the digests in force there (`held`),
# and what it was told of people (people.standing).
key_restore = sa.Table(
    "key_restore",
    metadata,
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("held", ARRAY(sa.LargeBinary)),
    sa.Column("people", JSONB),
    sa.Column("noticed_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("accepted_at", _timestamptz),
)

# `proof_at`: when what they log in with last changed. `factor`: the sealed secret of an app;
# `factor_step`: of the last code that was used (RFC 6238); `recovery`: digests of codes.
staff = sa.Table(
    "staff",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("roles", ARRAY(sa.Text), nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("disabled_at", _timestamptz),
    sa.Column("proof_at", _timestamptz),
    sa.Column("factor", sa.LargeBinary),
    sa.Column("factor_step", sa.BigInteger),
    sa.Column("recovery", ARRAY(sa.LargeBinary)),
    sa.UniqueConstraint("email", name="staff_email"),
)

# password: `hash`; oidc: `issuer` and `subject`. A person has one of them.
staff_credential = sa.Table(
    "staff_credential",
    metadata,
    sa.Column("staff_id", sa.ForeignKey(staff.c.id), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text),
    sa.Column("issuer", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Index("staff_credential_identity", "issuer", "subject", unique=True),
)

invitation = sa.Table(
    "invitation",
    metadata,
    sa.Column("token_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("staff_id", sa.ForeignKey(staff.c.id), nullable=False),
    sa.Column("expires_at", _timestamptz, nullable=False),
    sa.Column("used_at", _timestamptz),
    sa.Index("invitation_staff", "staff_id"),
)

staff_session = sa.Table(
    "staff_session",
    metadata,
    sa.Column("token_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("staff_id", sa.ForeignKey(staff.c.id), nullable=False),
    sa.Column("browser", sa.Text, nullable=False),
    sa.Column("created_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("seen_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("stepped_up_at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("ended_at", _timestamptz),
    sa.Index("staff_session_staff", "staff_id"),
    sa.Index("staff_session_seen", "seen_at"),
)

# By the hash of what was typed (people.tries): also for accounts that do not exist.
login_failure = sa.Table(
    "login_failure",
    metadata,
    sa.Column("email_sha256", sa.LargeBinary, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", _timestamptz, nullable=False, server_default=_now),
    sa.Index("login_failure_last_at", "last_at"),
)

# `done` never says too much: an answer that was lost with its process is not counted.
bulk_action = sa.Table(
    "bulk_action",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("at", _timestamptz, nullable=False, server_default=_now),
    sa.Column("staff_id", sa.ForeignKey(staff.c.id), nullable=False),
    sa.Column("verb", sa.Text, nullable=False),
    sa.Column("filter", JSONB, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("expected", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("state", sa.Text, nullable=False, server_default="running"),
    sa.Column("lease_until", _timestamptz),
    sa.Column("ended_at", _timestamptz),
    sa.Index("bulk_action_running", "at", postgresql_where=sa.text("state = 'running'")),
)

# What each target had in each minute; `delivered` and `failed` count from the beginning.
sample = sa.Table(
    "sample",
    metadata,
    sa.Column("at", _timestamptz, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("pending", sa.BigInteger, nullable=False),
    sa.Column("delivered", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
)
