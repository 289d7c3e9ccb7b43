"""Creates a long trail in the database, whose chain verifies."""

import time

from bench.consent.system import Consent

ENTRIES_EACH = 10
"""Entries per data subject."""

# The same lengths as consent writes: addresses, user agents and evidence under AES-GCM.
_PERSONS = """
    INSERT INTO consent.data_subject (id, lookup_hash, master_key_id, wrapped_key)
    SELECT md5(each::text)::uuid, sha256(int8send(each)), 'bench',
        sha256(int8send(each)) || substr(sha256(int8send(each)), 1, 28)
    FROM generate_series(1, %(persons)s) AS each
"""
_STATES = """
    INSERT INTO consent.consent_state (subject_id, purpose, state, changed_at, withdrawn_at)
    SELECT id, 'marketing', 'withdrawn', now(), now() FROM consent.data_subject
"""
_LINKING = """
    CREATE FUNCTION consent.bench_link(hash bytea, stored bytea) RETURNS bytea LANGUAGE plpgsql
    IMMUTABLE AS 'BEGIN RETURN sha256(hash || stored); END';
    CREATE AGGREGATE consent.bench_chain(bytea) (
        SFUNC = consent.bench_link, STYPE = bytea, INITCOND = %(start)s);
    ALTER TABLE consent.consent_audit_log DISABLE TRIGGER ALL;
"""
_TRAIL = """
    INSERT INTO consent.consent_audit_log (id, subject_id, action, "timestamp", email, ip_address,
        user_agent, reason, session_id, evidence, hash)
    SELECT id, subject_id, action, "timestamp", email, ip_address, user_agent, reason, session_id,
        evidence, consent.bench_chain(record_send(ROW(id, subject_id, action, "timestamp", email,
            ip_address, user_agent, reason, session_id, evidence))) OVER (ROWS UNBOUNDED PRECEDING)
    FROM (
        SELECT each AS id, md5((1 + each %% %(persons)s)::text)::uuid AS subject_id,
            (ARRAY['opt-in', 'unsubscribe'])[1 + each %% 2] AS action,
            now() - (%(rows)s - each) * interval '1 second' AS "timestamp",
            random || substr(random, 1, 16) AS email,
            random || substr(random, 1, 8) AS ip_address,
            random || random || random AS user_agent,
            NULL::bytea AS reason, NULL::bytea AS session_id,
            random || random AS evidence
        FROM generate_series(1::bigint, %(rows)s) AS each,
            LATERAL (SELECT sha256(int8send(each))) AS _ (random)
    ) AS entry
"""
_LINKED = """
    ALTER TABLE consent.consent_audit_log ENABLE TRIGGER ALL;
    ALTER TABLE consent.consent_audit_log ENABLE ALWAYS TRIGGER trail_link;
    ALTER TABLE consent.consent_audit_log ENABLE ALWAYS TRIGGER trail_refuse;
"""
_INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'consent' AND tablename = 'consent_audit_log' AND indexname !~ '_pkey$'
"""


def fill(system: Consent, rows: int) -> None:
    """Write entries for a tenth as many data subjects, as the superuser, bypassing the triggers."""
    began = time.monotonic()
    values = {"rows": rows, "persons": max(1, rows // ENTRIES_EACH)}
    system.query(_PERSONS, values)
    system.query(_STATES)
    system.query(_LINKING, {"start": f"\\x{bytes(32).hex()}"})
    indexes = system.query(_INDEXES)
    for name, _ in indexes:
        system.query(f"DROP INDEX consent.{name}")
    system.query(_TRAIL, values)
    for _, definition in indexes:  # faster than maintaining them row by row
        system.query(definition)
    system.query(_LINKED)
    system.query("ANALYZE")
    print(f"  {rows:,} rows in {time.monotonic() - began:.0f} s", flush=True)
