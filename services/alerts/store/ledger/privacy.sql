-- fragment: after
(alert_id, target) > (:alert_id, :target) ORDER BY alert_id, target

-- name: look
SELECT alert_id, target, event_type, severity, state, reason, payload, accepted_at,
    finished_at, attempt, error, once_address, once_purpose, once_reference, dedup_key,
    CAST(subjects AS text[]) AS named
FROM delivery
WHERE subjects <> '{}' AND subjects && CAST(:hashes AS bytea[]) AND {after} LIMIT {page}

-- name: words
SELECT alert_id, target, payload, dedup_key, once_address, subjects <> '{}' AS names_somebody
FROM delivery WHERE {after} LIMIT {batch}

-- name: erase
UPDATE delivery SET
    payload = NULL, dedup_key = NULL, subjects = '{}',
    once_address = CASE WHEN once_address IS NOT NULL THEN 'erased' END,
    error = CASE WHEN error IS NOT NULL THEN 'erased' END,
    reason = CASE WHEN state = 'pending' THEN 'erased' ELSE reason END,
    finished_at = coalesce(finished_at, now()),
    state = CASE WHEN state = 'pending' THEN 'discarded' ELSE state END
WHERE alert_id = :alert_id AND target = :target AND state NOT IN ('claimed', 'sending')
RETURNING 1 AS matched

-- name: lock
SELECT state FROM delivery WHERE alert_id = :alert_id AND target = :target FOR UPDATE

-- name: strike
UPDATE delivery SET payload = :payload, subjects = ARRAY(
    SELECT unnest(subjects) EXCEPT SELECT unnest(CAST(:hashes AS bytea[])))
WHERE alert_id = :alert_id AND target = :target AND payload IS NOT NULL
    AND state NOT IN ('claimed', 'sending')

-- name: exclude
SELECT pg_advisory_xact_lock({intake})

-- name: share
SELECT pg_advisory_xact_lock_shared({intake})

-- name: mark
INSERT INTO erased_subject AS mine (hash)
SELECT unnest(CAST(:hashes AS bytea[]))
ON CONFLICT (hash) DO UPDATE SET erased_at = now()

-- name: erased
-- What a gateway accepted is compared by its own clock, which may be ahead of the database's.
SELECT CAST(hash AS text) AS hash,
    erased_at + interval '{clocks_apart_seconds} s' AS erased_at
FROM erased_subject WHERE hash = ANY(CAST(:hashes AS bytea[]))
