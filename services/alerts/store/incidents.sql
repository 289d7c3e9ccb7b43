-- fragment: refuses
(kind = 'breaker' AND number > 0 AND since <= now() - interval '{certain_seconds} s')

-- name: unhealthy
SELECT target, since, {refuses} AS refuses,
    EXISTS (SELECT FROM breaker WHERE breaker.target = incident.target AND {shut}) AS shut
FROM incident WHERE kind = 'breaker'

-- fragment: asks
-- A step, and an alert where it asks. An update is never critical.
EXISTS (SELECT FROM case_place
    WHERE (case_place.alert_id, case_place.target) = (stuck.alert_id, stuck.target))

-- fragment: critical
-- An alert that intake was late with has a while for its own target. A worker may wait for the
-- database with an outcome, longer than its lease. What failed is not tried again, but what failed
-- long ago, perhaps before this release, is left to a person. Each part has an index.
severity = 'critical' AND target = :target AND once_address IS NULL

-- fragment: late
{critical} AND NOT :shut AND (:refuses
    OR coalesce(requeued_at, least(accepted_at, created_at)) < now() - make_interval(secs => :after)
        AND created_at < now() - make_interval(secs => :after / 10))

-- name: stuck
WITH stuck AS (
    SELECT * FROM delivery WHERE state = 'pending' AND {late}
    UNION ALL SELECT * FROM delivery WHERE state = 'sending' AND {late}
        AND lease_until < now() - make_interval(secs => :after / 10) AND NOT recalled
    UNION ALL SELECT * FROM delivery
    WHERE {kept} AND payload IS NOT NULL AND state = 'failed' AND {critical}
        AND finished_at > now() - make_interval(secs => :after * 6)
)
SELECT alert_id FROM stuck
WHERE {asks} = :asks AND NOT EXISTS (
    SELECT FROM delivery AS other
    WHERE other.alert_id = stuck.alert_id AND other.target = :fallback
        AND other.state IN ('failed', 'discarded', 'in_doubt'))
ORDER BY created_at LIMIT :batch

-- name: fall_back
-- The new row is an accepted one like any other, but without a dedup key: whether it is a repeat was
-- decided when the alert came. A recipient in the payload was meant for the first channel only.
WITH stuck AS (
    SELECT alert_id, target, event_type, severity, source, payload, request_id, accepted_at,
        subjects, resolved
    FROM delivery
    WHERE target = :target AND alert_id = ANY(CAST(:alert_ids AS uuid[]))
        AND (state IN ('pending', 'failed')
            OR state = 'sending' AND lease_until < now() AND NOT recalled)
    ORDER BY alert_id FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE delivery SET
        state = 'discarded', reason = 'fallback', finished_at = now(), lease_until = NULL,
        error = 'handed to ' || :fallback || ': ' || coalesce(delivery.error, 'never tried')
    FROM stuck
    WHERE delivery.alert_id = stuck.alert_id AND delivery.target = stuck.target
    RETURNING delivery.alert_id
), added AS (
    INSERT INTO delivery (
        alert_id, target, event_type, severity, source, payload, request_id, accepted_at,
        subjects, resolved, state)
    SELECT alert_id, :fallback, event_type, severity, source,
        CASE WHEN :same_channel THEN payload ELSE payload - 'to' END,
        request_id, accepted_at, subjects, resolved, 'pending'
    FROM stuck ORDER BY alert_id
    ON CONFLICT DO NOTHING
    RETURNING alert_id, request_id
), counted AS (
    INSERT INTO ledger_total AS total (target, accepted)
    SELECT :fallback, count(*) FROM added HAVING count(*) > 0
    ON CONFLICT (target) DO UPDATE SET accepted = total.accepted + excluded.accepted
)
SELECT ended.alert_id, added.alert_id IS NOT NULL AS added, added.request_id,
    'critical' AS severity
FROM ended LEFT JOIN added USING (alert_id)

-- name: place
INSERT INTO case_place (alert_id, target, case_id, want)
SELECT alert_id, :fallback, case_id, want FROM case_place
WHERE alert_id = ANY(CAST(:alert_ids AS uuid[])) AND target = :target
ON CONFLICT DO NOTHING

-- name: observe
-- Opens incidents of this kind, or updates their numbers; closes those of 0 and of others.
WITH seen AS (
    SELECT key AS target, CAST(value AS bigint) AS number
    FROM jsonb_each_text(CAST(:numbers AS jsonb)) WHERE value <> '0'
), over AS (
    DELETE FROM incident WHERE kind = :kind AND target NOT IN (SELECT target FROM seen)
)
INSERT INTO incident (kind, target, number) SELECT :kind, target, number FROM seen
ON CONFLICT (kind, target) DO UPDATE SET number = excluded.number

-- fragment: due
-- The owner of a subscription is warned of it (subscriptions.sql), not on-call.
-- Reported when it has lasted long enough, and repeated after a while. A breaker's incident whose
-- breaker is closed by now (the process restarted, and nothing was sent since) is not reported.
-- That a target refuses us is reported as soon as it is certain.
target NOT LIKE 'subscription.%' AND (notified_at IS NULL AND {pause_over}
    OR notified_at < now() - make_interval(secs => :repeat))
AND ({refuses} OR since <= now() - CASE WHEN kind IN ('breaker', 'pending')
    THEN make_interval(secs => :after) ELSE interval '0' END)
AND (kind <> 'breaker' OR EXISTS (SELECT FROM breaker
    WHERE breaker.target = incident.target AND {shut}))

-- name: failures_due
-- The targets whose failures are due to be reported.
SELECT target FROM escalation WHERE digest IS NULL
GROUP BY target HAVING bool_and({pause_over})

-- name: incidents_due
SELECT DISTINCT target FROM incident WHERE {due}

-- name: take_failures
-- Marks them as reported by this digest, and sums them up; `count` may be 0.
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

-- name: take_incidents
WITH taken AS (
    UPDATE incident SET notified_at = now(), digest = :digest,
        send_failures = CASE WHEN notified_at IS NULL THEN send_failures ELSE 0 END
    WHERE target = :target AND {due}
    RETURNING kind, since, number
)
SELECT kind, since, number FROM taken ORDER BY since

-- name: last_error
-- Of an alert that is still pending.
SELECT error FROM delivery
WHERE target = :target AND state = 'pending' AND error IS NOT NULL
ORDER BY last_attempt_at DESC NULLS LAST LIMIT 1

-- name: mark_unsent
-- All that this failed digest reported is due again, after a pause.
WITH failures AS (
    UPDATE escalation SET digest = NULL, send_failed_at = now(), send_failures = send_failures + 1
    WHERE digest = :digest
)
UPDATE incident SET
    notified_at = NULL, digest = NULL,
    send_failed_at = now(), send_failures = send_failures + 1
WHERE digest = :digest

-- name: escalate
INSERT INTO escalation (alert_id, target, event_type, reason, error)
VALUES (:alert_id, :target, :event_type, :reason, :error)

-- name: unsent_seconds
-- The age of the oldest failure that no mail has reported.
-- The failures in a mail that has not been sent yet are also unsent.
SELECT CAST(coalesce(extract(epoch FROM now() - least(
    (SELECT min(created_at) FROM escalation WHERE digest IS NULL),
    (SELECT min(escalation.created_at)
     FROM delivery JOIN escalation ON escalation.digest = delivery.alert_id
     WHERE {open} AND delivery.event_type = '{escalation}')
)), 0) AS float) AS seconds
