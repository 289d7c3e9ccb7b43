-- name: take
WITH taken AS (
    UPDATE escalation SET digest = :digest WHERE target = :target AND digest IS NULL
    RETURNING id, alert_id, target, event_type, reason, created_at,
        coalesce(error, reason) AS error
), told AS (
    SELECT taken.alert_id AS id, taken.event_type, CASE WHEN once_address IS NULL THEN
        left(coalesce(payload->>'subject', payload->>'text'), 200) END AS said
    FROM taken LEFT JOIN delivery USING (alert_id, target) ORDER BY taken.id LIMIT 20
)
SELECT
    count(*) AS count,
    (SELECT jsonb_object_agg(reason, number) FROM
        (SELECT reason, count(*) AS number FROM taken GROUP BY reason) r) AS reasons,
    min(created_at) AS first_at, (array_agg(error ORDER BY id))[1] AS first_error,
    (SELECT jsonb_agg(told) FROM told) AS alerts,
    max(created_at) AS last_at, (array_agg(error ORDER BY id DESC))[1] AS last_error
FROM taken

-- name: targets
SELECT target FROM escalation WHERE digest IS NULL
GROUP BY target HAVING bool_and({pause_over})

-- name: unsent_seconds
-- The failures in a mail that has not been sent yet are also unsent.
SELECT CAST(coalesce(extract(epoch FROM now() - least(
    (SELECT min(created_at) FROM escalation WHERE digest IS NULL),
    (SELECT min(escalation.created_at)
     FROM delivery JOIN escalation ON escalation.digest = delivery.alert_id
     WHERE {open} AND delivery.event_type = '{escalation}')
)), 0) AS float) AS seconds

-- name: mark_unsent
UPDATE escalation SET digest = NULL, send_failed_at = now(), send_failures = send_failures + 1
WHERE digest = :digest
