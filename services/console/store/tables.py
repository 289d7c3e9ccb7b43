"""The tables that the code names; `schema.sql` beside this file has their columns."""

from pathlib import Path

from libs.common.database import schema

metadata = schema.read(Path(__file__).with_name("schema.sql"))
_tables = metadata.tables

api_key = _tables["api_key"]
invitation = _tables["invitation"]
key_reader = _tables["key_reader"]
staff_session = _tables["staff_session"]
# Append-only. `count`: of rows, where one act changed, or showed, several.
staff_action = _tables["staff_action"]
# `added_in`: the version that brought it; `until`: when it ends before its key, after a rotation.
api_key_digest = _tables["api_key_digest"]
# Append-only: a version that is not here comes from a database that this one was restored over.
key_version = _tables["key_version"]
# A version that a gateway has and that key_version lacks, with the digests in force there (`held`),
# and what it was told about people (people.standing).
key_restore = _tables["key_restore"]
# `proof_at`: when what they log in with last changed. `factor`: the sealed secret of an app;
# `factor_step`: of the last code that was used (RFC 6238); `recovery`: digests of codes.
staff = _tables["staff"]
# password: `hash`; oidc: `issuer` and `subject`. A person has one of them.
staff_credential = _tables["staff_credential"]
# By the hash of what was typed (people.tries): also for accounts that do not exist.
login_failure = _tables["login_failure"]
# `done` never says too much: an answer that was lost with its process is not counted.
bulk_action = _tables["bulk_action"]
# What each target had in each minute; `delivered` and `failed` count from the beginning.
sample = _tables["sample"]
