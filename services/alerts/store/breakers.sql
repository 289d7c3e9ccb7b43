-- name: join
-- Creates a row for each target, and forgets processes that have been dead for an hour. A target that
-- refused us is tried at once: whoever starts may have the corrected setting.
WITH dead AS (
    DELETE FROM replica WHERE seen_at < now() - interval '1 hour'
), refused AS (
    UPDATE breaker SET next_trial_at = now() WHERE target IN (
        SELECT target FROM breaker
        WHERE held IS NOT NULL AND state = 'open' AND target = ANY(CAST(:targets AS text[]))
        ORDER BY target FOR UPDATE)
)
INSERT INTO breaker (target) SELECT unnest(CAST(:targets AS text[])) AS target
ORDER BY target ON CONFLICT DO NOTHING

-- name: report
-- What this process observed, and that it is alive; the breakers move accordingly. A report has a
-- target, its breaker's observations, whether it `wants_trial`, for how many seconds the target asked
-- to be `paused`, and the breaker's settings.
-- Locked in order, so that two processes wait for each other but never deadlock. A time further off
-- than any that is ever set means that the clock was set back. Whether a refusal is the target's
-- or one alert's the next alert tells, so its first trial is at once.
WITH alive AS (
    INSERT INTO replica (process, numbers, together) VALUES (:process, true, true)
    ON CONFLICT (process) DO UPDATE SET seen_at = now()
    WHERE replica.seen_at NOT BETWEEN now() - interval '5 s' AND now()
), report AS (
    SELECT * FROM jsonb_to_recordset(CAST(:reports AS jsonb)) AS t(
        target text, healthy boolean, failures integer, trial boolean, wants_trial boolean,
        refused text, paused float, fail_max integer, reset_timeout float)
), locked AS MATERIALIZED (
    SELECT * FROM breaker WHERE target IN (SELECT target FROM report) ORDER BY target FOR UPDATE
), counted AS (
    SELECT *, state = 'half_open' AND trial_by = :process AS mine,
        next_trial_at NOT BETWEEN now()
            AND now() + make_interval(
                secs => greatest({held_times} * reset_timeout, {trial_seconds})) AS due,
        CASE WHEN healthy THEN report.failures
            ELSE locked.failures + report.failures END AS number
    FROM locked JOIN report USING (target)
), moved AS (
    SELECT *, CASE
        WHEN refused IS NOT NULL AND (mine OR state = 'closed') THEN 'open'
        WHEN mine AND trial THEN 'closed'
        WHEN mine AND NOT trial OR state = 'closed' AND number >= fail_max THEN 'open'
        WHEN wants_trial AND state <> 'closed' AND (due OR mine) THEN 'trial'
        ELSE 'same' END AS move
    FROM counted
), healed AS (
    DELETE FROM incident USING moved
    WHERE kind = 'breaker' AND incident.target = moved.target AND healthy AND move <> 'open'
        AND (held IS NULL OR move = 'closed')
), unhealthy AS (
    INSERT INTO incident AS open (kind, target, number)
    SELECT 'breaker', target, CAST(refused IS NOT NULL AS integer) FROM moved
    WHERE move = 'open' OR refused IS NOT NULL OR paused > 0 AND NOT healthy ORDER BY target
    ON CONFLICT (kind, target) DO UPDATE
    SET number = 1, since = now(), notified_at = NULL, send_failed_at = NULL, send_failures = 0
    WHERE excluded.number > open.number
)
UPDATE breaker SET
    state = CASE move WHEN 'same' THEN moved.state WHEN 'trial' THEN 'half_open' ELSE move END,
    failures = CASE WHEN move = 'closed' THEN 0
        WHEN moved.state = 'closed' THEN number ELSE breaker.failures END,
    next_trial_at = CASE move WHEN 'same' THEN moved.next_trial_at
        WHEN 'open' THEN now() + make_interval(secs => CASE
            WHEN coalesce(refused, moved.held) IS NULL THEN reset_timeout
            WHEN moved.held IS NULL OR trial THEN 0
            ELSE {held_times} * reset_timeout END)
        WHEN 'trial' THEN now() + interval '{trial_seconds} s' END,
    trial_by = CASE move WHEN 'same' THEN moved.trial_by WHEN 'trial' THEN :process END,
    paused_until = CASE WHEN paused > 0
        THEN greatest(moved.paused_until, now() + make_interval(secs => paused))
        ELSE moved.paused_until END,
    held = CASE move WHEN 'closed' THEN NULL ELSE coalesce(refused, moved.held) END,
    healed_at = CASE WHEN mine AND trial AND moved.held IS NOT NULL THEN now()
        ELSE moved.healed_at END
FROM moved WHERE breaker.target = moved.target

-- name: read
SELECT breaker.target, state, failures,
    greatest(0, CAST(extract(epoch FROM next_trial_at - now()) AS float)),
    coalesce(state = 'half_open' AND trial_by = :process, false),
    CASE WHEN {paused} THEN CAST(extract(epoch FROM paused_until - now()) AS float)
        ELSE 0 END, since,
    (SELECT count(*) FROM replica WHERE seen_at BETWEEN
        now() - interval '{alive_seconds} s' AND now() + interval '{alive_seconds} s'),
    NOT EXISTS (SELECT FROM replica WHERE NOT together AND seen_at > now() - interval '1 hour'),
    held, coalesce(nullif(description, ''), substring(url FROM '^[^/]+//[^/?]+'))
FROM breaker LEFT JOIN incident ON incident.target = breaker.target AND kind = 'breaker'
LEFT JOIN subscription ON breaker.target = 'subscription.' || subscription.id

-- name: leave
-- Stops counting as alive, and leaves a trial to another process.
WITH trial AS (UPDATE breaker SET state = 'open', next_trial_at = now(), trial_by = NULL
    WHERE trial_by = :process)
DELETE FROM replica WHERE process = :process

-- name: reset
-- Closes this breaker for all processes, and its incident, for an operator.
WITH over AS (DELETE FROM incident WHERE kind = 'breaker' AND target = :target)
UPDATE breaker SET state = 'closed', failures = 0, next_trial_at = NULL, trial_by = NULL,
    paused_until = NULL, held = NULL
WHERE target = :target
