-- fragment: columns
id, url, events, description, owner_email, personal_data, made_by, paused, replay, created_at

-- name: listed
SELECT {columns}, since AS failing_since, CASE WHEN paused IS NOT NULL THEN 'paused'
    WHEN since IS NOT NULL THEN 'failing' ELSE 'active' END AS state
FROM subscription LEFT JOIN incident ON kind = 'breaker' AND target = 'subscription.' || id
WHERE CAST(:id AS uuid) IS NULL OR id = :id ORDER BY created_at, id

-- name: lock
SELECT {columns} FROM subscription WHERE id = :id FOR UPDATE

-- name: running_ids
SELECT id FROM subscription WHERE paused IS NULL

-- name: running
-- Its secrets are those that sign now, the newest first.
SELECT id, url, ARRAY(
    SELECT secret FROM subscription_secret AS one
    WHERE subscription = subscription.id AND (ends_at IS NULL OR ends_at > now())
    ORDER BY made_at DESC LIMIT 2
) AS secrets
FROM subscription WHERE paused IS NULL ORDER BY id

-- name: add
-- The lock lets two at once not be one too many.
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtext('alerts.subscription')))
INSERT INTO subscription (url, events, description, owner_email, personal_data, made_by)
SELECT :url, :events, :description, :owner_email, :personal_data, :made_by FROM locked
RETURNING id

-- name: count
SELECT count(*) FROM subscription

-- name: change
UPDATE subscription SET url = :url, events = :events, description = :description,
    owner_email = :owner_email, made_by = :made_by, paused = :paused,
    told = CASE WHEN CAST(:paused AS text) IS NULL AND paused IS NOT NULL THEN 0 ELSE told END
WHERE id = :id

-- name: remove
DELETE FROM subscription WHERE id = :id

-- name: forget_target
WITH breaker AS (DELETE FROM breaker WHERE target = :target)
DELETE FROM incident WHERE target = :target

-- name: rotate
WITH before AS (
    UPDATE subscription_secret SET ends_at = CASE WHEN ends_at IS NULL
        THEN now() + make_interval(secs => :seconds) ELSE now() END
    WHERE subscription = :id
)
INSERT INTO subscription_secret (subscription, secret) VALUES (:id, :secret)

-- name: pause
UPDATE subscription SET paused = :paused WHERE id = :id AND paused IS NULL

-- name: pause_of
UPDATE subscription SET paused = :paused WHERE made_by = :made_by AND paused IS NULL RETURNING id

-- name: order_events
-- Numbers are in the order of commits, so whoever reads after the last one misses none.
SELECT pg_advisory_xact_lock(hashtext('alerts.event'))

-- name: keep
INSERT INTO event (id, type, data, subjects, at)
VALUES (:id, :type, :data, CAST(CAST(:hashes AS text[]) AS bytea[]), :at)
ON CONFLICT DO NOTHING RETURNING id

-- name: receiving
-- Locked, so that none gets a row after it was paused.
SELECT id, events, personal_data FROM subscription WHERE paused IS NULL ORDER BY id FOR SHARE

-- name: events
SELECT id, number, type, data, at FROM event
WHERE number > :after ORDER BY number LIMIT :limit

-- name: last
SELECT coalesce(max(number), 0) FROM event

-- name: deliveries
-- The condition with LIKE is that of the index.
SELECT alert_id AS id, event_type AS event, CASE WHEN {open} THEN 'pending' ELSE state END AS status,
    reason, created_at, finished_at, CASE WHEN {open} THEN due_at END AS next_attempt_at,
    coalesce((SELECT jsonb_agg(jsonb_build_object('number', number, 'at', ended_at, 'outcome', outcome,
            'status', status, 'seconds', seconds, 'answer', excerpt) ORDER BY number)
        FROM attempt AS one
        WHERE (one.alert_id, one.target) = (delivery.alert_id, delivery.target)), '[]') AS attempts
FROM delivery
WHERE target = :target AND target LIKE 'subscription.%'
    AND (CAST(:event AS text) IS NULL OR event_type = :event)
    AND (CAST(:status AS text) IS NULL OR state = :status OR :status = 'pending' AND {open})
    AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
    AND (CAST(:before AS timestamptz) IS NULL OR (created_at, alert_id) < (:before, :id))
ORDER BY created_at DESC, alert_id DESC LIMIT :limit

-- name: due
-- A row whose reason is not NULL has failed and has no message: this gives it one.
SELECT alert_id, target FROM delivery
WHERE state IN ('pending', 'claimed', 'sending') AND target = ANY(CAST(:targets AS text[]))
    AND state = 'pending' AND reason IS NOT NULL AND due_at <= now()
ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: drop_work
-- Of those that are gone or paused, which have no queue; the reconciler helps one that resumes.
DELETE FROM outbox WHERE routing_key LIKE 'alerts.subscription.%' AND NOT EXISTS (
    SELECT FROM subscription
    WHERE paused IS NULL AND starts_with(routing_key, 'alerts.subscription.' || id))

-- name: order_replay
UPDATE subscription SET replay = :replay WHERE id = :id

-- name: replays
-- Those that have sent all that is due, the new events included; one step at a time.
SELECT {columns} FROM subscription
WHERE replay IS NOT NULL AND paused IS NULL AND NOT EXISTS (
    SELECT FROM delivery WHERE state IN ('pending', 'claimed', 'sending')
        AND target = 'subscription.' || subscription.id AND due_at <= now())
ORDER BY id FOR UPDATE SKIP LOCKED

-- fragment: chosen
SELECT event.id, event.number, event.type, event.data, event.at, delivery.state,
    CAST(event.subjects AS text[]) AS named
FROM event LEFT JOIN delivery
    ON (delivery.alert_id, delivery.target) = (event.id, CAST(:target AS text))
WHERE event.number > :after AND event.created_at >= :since AND event.created_at < :until
    AND (NOT :only_failed OR delivery.state = 'failed')
    AND EXISTS (SELECT FROM unnest(CAST(:events AS text[])) AS pattern
        WHERE event.type LIKE replace(replace(pattern, '_', '\_'), '*', '%'))
    AND EXISTS (SELECT FROM subscription, unnest(events) AS pattern
        WHERE 'subscription.' || subscription.id = :target AND (personal_data AND event.type = 'person.erased'
            OR event.type LIKE replace(replace(pattern, '_', '\_'), '*', '%')))
ORDER BY event.number LIMIT :limit

-- name: to_replay
{chosen}

-- name: count_replay
SELECT count(*) FROM ({chosen}) AS chosen

-- name: again
-- What a worker has, or still waits, comes anyway.
UPDATE delivery SET payload = payload || '{"replayed": true}'
WHERE alert_id = ANY(CAST(:ids AS uuid[])) AND target = :target AND payload IS NOT NULL
    AND state IN ('delivered', 'failed', 'discarded')
RETURNING alert_id, target

-- name: fail
-- Only while something waits: after that nobody knows whether it would still be refused.
UPDATE subscription SET paused = 'failing'
FROM incident
WHERE kind = 'breaker' AND target = 'subscription.' || subscription.id AND paused IS NULL
    AND told = 4 AND since <= now() - interval '5 days' AND EXISTS (
        SELECT FROM delivery WHERE state IN ('pending', 'claimed', 'sending')
            AND delivery.target = incident.target)

-- name: to_tell
WITH stage AS (
    SELECT id, told AS before, CASE WHEN paused = 'asked' THEN told WHEN paused IS NOT NULL THEN 5
        WHEN since <= now() - interval '4 days' THEN 4
        WHEN since <= now() - interval '1 day' THEN 1 ELSE 0 END AS days
    FROM subscription LEFT JOIN incident
        ON kind = 'breaker' AND target = 'subscription.' || subscription.id
), changed AS (
    UPDATE subscription SET told = days FROM stage
    WHERE stage.id = subscription.id AND days <> told
    RETURNING subscription.id, url, owner_email, description, paused, told, before
)
SELECT id, url, owner_email, description, paused, told FROM changed
WHERE told > before ORDER BY id

-- name: named_events
SELECT number, type, data, at, CAST(subjects AS text[]) AS named FROM event
WHERE subjects <> '{}' AND number > :after AND (CAST(:hashes AS text[]) IS NULL
    OR subjects && CAST(CAST(:hashes AS text[]) AS bytea[]))
ORDER BY number LIMIT :limit

-- name: naming
SELECT id, CAST(subjects AS text[]) AS named FROM event
WHERE subjects <> '{}' AND subjects && CAST(CAST(:hashes AS text[]) AS bytea[])

-- name: erase
DELETE FROM event WHERE id = ANY(CAST(CAST(:ids AS text[]) AS uuid[]))

-- name: purge
DELETE FROM event WHERE created_at < now() - interval '14 days'
