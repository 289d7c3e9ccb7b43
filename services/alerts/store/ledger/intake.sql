-- name: accept
-- Rows are ordered, so that two batches with the same alerts wait for each other, never deadlock.
WITH given AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        alert_id uuid, target text, event_type text, severity text, source text,
        payload jsonb, dedup_key text, request_id text, accepted_at timestamptz,
        once_address text, once_purpose text, once_reference text,
        once_not_after timestamptz, subjects bytea[], failed text, silence bigint,
        caller text, resolved boolean)
), added AS (
    INSERT INTO delivery (
        alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
        accepted_at, once_address, once_purpose, once_reference, once_not_after, subjects,
        caller, resolved, state, reason, error, finished_at)
    SELECT
        alert_id, target, event_type, severity, source, payload, dedup_key, request_id,
        accepted_at, once_address, once_purpose, once_reference, once_not_after, subjects,
        caller, resolved, CASE WHEN failed IS NULL THEN 'pending' WHEN failed <> 'unrouted'
            THEN 'discarded' ELSE 'failed' END, failed,
        CASE WHEN failed = 'silenced' THEN coalesce('silence ' || silence, failed) ELSE failed END,
        CASE WHEN failed IS NULL THEN NULL ELSE now() END
    FROM given ORDER BY alert_id, target
    ON CONFLICT DO NOTHING
    RETURNING alert_id, target, event_type, reason
), counted AS (
    INSERT INTO ledger_total AS total (target, accepted)
    SELECT target, count(*) FROM added GROUP BY target ORDER BY target
    ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
), escalated AS (
    INSERT INTO escalation (alert_id, target, event_type, reason)
    SELECT alert_id, target, event_type, reason FROM added
    WHERE reason = 'unrouted'
)
SELECT count(*) AS added, count(*) FILTER (WHERE reason = 'silenced') AS silenced FROM added

-- name: lock
SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key

-- name: seen
SELECT alert_id, target, CAST(NULL AS uuid) AS first_id FROM delivery
WHERE alert_id = ANY(CAST(:alert_ids AS uuid[]))
UNION ALL SELECT alert_id, target, first_id FROM duplicate
WHERE alert_id = ANY(CAST(:alert_ids AS uuid[]))

-- name: known
-- A failed alert takes no more repeats: operators were notified, and the next may well be delivered.
-- The others are locked until the count is committed, so that a later end includes all repeats; and
-- in the order in which deliveries lock them.
SELECT alert_id, target, source, caller, event_type, dedup_key, severity, resolved, accepted_at,
    coalesce(fired_at, accepted_at) AS fired_at,
    CASE WHEN state IN ('failed', 'discarded') THEN reason END AS failed
FROM delivery WHERE dedup_key = ANY(CAST(:dedup_keys AS text[]))
    AND (resolved OR accepted_at > :at OR fired_at > :at)
ORDER BY alert_id, target
FOR NO KEY UPDATE

-- name: close
UPDATE delivery SET dedup_key = NULL
FROM unnest(CAST(:alert_ids AS uuid[]), CAST(:targets AS text[])) AS one (alert_id, target)
WHERE (delivery.alert_id, delivery.target) = (one.alert_id, one.target)

-- name: totals
-- Totals are locked after the rows and in order, as everywhere.
SELECT FROM ledger_total WHERE target = ANY(CAST(:targets AS text[]))
ORDER BY target FOR NO KEY UPDATE

-- name: count
WITH given AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
        alert_id uuid, target text, accepted_at timestamptz, first_id uuid, request_id text)
), noted AS (
    INSERT INTO duplicate (alert_id, target, first_id, request_id, accepted_at)
    SELECT alert_id, target, first_id, request_id, accepted_at FROM given
    ON CONFLICT DO NOTHING
    RETURNING first_id, target, accepted_at
), counted AS (
    UPDATE delivery SET duplicates = duplicates + repeats,
        fired_at = greatest(fired_at, delivery.accepted_at, last)
    FROM (SELECT first_id, target, count(*) AS repeats, max(accepted_at) AS last
        FROM noted GROUP BY first_id, target) AS n
    WHERE (delivery.alert_id, delivery.target) = (n.first_id, n.target)
)
UPDATE ledger_total SET duplicates = duplicates + repeats
FROM (SELECT target, count(*) AS repeats FROM noted GROUP BY target) AS n
WHERE ledger_total.target = n.target
