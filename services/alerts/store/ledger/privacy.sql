-- fragment: after
(alert_id, target) > :after ORDER BY alert_id, target

-- name: look
-- The next rows that name one of these.
SELECT alert_id, target, event_type, severity, state, reason, payload, accepted_at,
    finished_at, attempt, error, once_address, once_purpose, once_reference, dedup_key,
    CAST(subjects AS text[]) AS named
FROM delivery
WHERE subjects <> '{}' AND subjects && CAST(:hashes AS bytea[]) AND {after} LIMIT {page}

-- name: words
-- The next part of the ledger, whoever it names.
SELECT alert_id, target, payload, dedup_key, once_address, subjects <> '{}' AS names_somebody
FROM delivery WHERE {after} LIMIT {batch}

-- name: erase
-- Empties a row, and discards it if it is pending. The row stays, because it is counted.
WITH erased AS (
    UPDATE delivery SET
        payload = NULL, dedup_key = NULL, subjects = '{}',
        once_address = CASE WHEN once_address IS NOT NULL THEN 'erased' END,
        error = CASE WHEN error IS NOT NULL THEN 'erased' END,
        reason = CASE WHEN state = 'pending' THEN 'erased' ELSE reason END,
        finished_at = coalesce(finished_at, now()),
        state = CASE WHEN state = 'pending' THEN 'discarded' ELSE state END
    WHERE alert_id = :alert_id AND target = :target AND state NOT IN ('claimed', 'sending')
    RETURNING alert_id, target
), answers AS (
    UPDATE attempt SET excerpt = '' FROM erased
    WHERE (attempt.alert_id, attempt.target) = (erased.alert_id, erased.target)
)
UPDATE escalation SET error = NULL FROM erased
WHERE (escalation.alert_id, escalation.target) = (erased.alert_id, erased.target)

-- name: lock
SELECT state FROM delivery WHERE alert_id = :alert_id AND target = :target FOR UPDATE

-- name: strike
-- Replaces the payload of a row, which no longer names these.
UPDATE delivery SET payload = :payload, subjects = ARRAY(
    SELECT unnest(subjects) EXCEPT SELECT unnest(CAST(:hashes AS bytea[])))
WHERE alert_id = :alert_id AND target = :target AND payload IS NOT NULL
    AND state NOT IN ('claimed', 'sending')

-- name: share
SELECT pg_advisory_xact_lock_shared({intake})

-- name: mark
-- Writes tombstones; every intake transaction either precedes this one or sees them.
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock({intake}))
INSERT INTO erased_subject AS mine (hash)
SELECT unnest(CAST(:hashes AS bytea[])) FROM locked
ON CONFLICT (hash) DO UPDATE SET erased_at = now()

-- name: erased
-- What a gateway accepted is compared by its own clock, which may be ahead of the database's.
SELECT CAST(hash AS text) AS hash,
    erased_at + interval '{clocks_apart_seconds} s' AS erased_at
FROM erased_subject WHERE hash = ANY(CAST(:hashes AS bytea[]))

-- name: forget
-- No message from before these tombstones can be on its way.
DELETE FROM erased_subject WHERE erased_at < now() - make_interval(secs => :seconds)

-- name: attempts
SELECT {of_attempt}
FROM attempt JOIN unnest(CAST(:ids AS uuid[]), CAST(:targets AS text[])) AS given (id, name)
    ON (alert_id, target) = (id, name)
ORDER BY alert_id, target, number
