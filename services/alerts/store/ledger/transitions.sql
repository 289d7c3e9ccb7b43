-- fragment: row
generation, attempt, attempts, event_type, severity, payload, accepted_at, request_id, due_at,
resolved,
CAST(extract(epoch FROM now() - coalesce(requeued_at, created_at)) AS float) AS age,
once_address, once_purpose, once_reference,
CAST(extract(epoch FROM once_not_after - now()) AS float) AS window_left

-- fragment: singled_out
-- The target refused us over this alert, and has accepted another since (`decide`). After the claim
-- the time of that refusal is gone.
coalesce(reason IN ('{unauthorized}', '{gone}') AND EXISTS (
    SELECT FROM breaker
    WHERE breaker.target = delivery.target AND healed_at > last_attempt_at), false) AS singled_out

-- name: claim
-- A message that comes before its row is due is a duplicate, or the queue's TTL is shorter than the
-- delay. It is parked, so that duplicates do not use up attempts faster than the delays allow.
-- The slot does not wait until the claim is on disk. One that PostgreSQL loses in a crash is made
-- again; had the alert arrived, `record` says so all the same. What is on disk after that has the claim.
WITH asked AS MATERIALIZED (
    SELECT alert_id, target, position, {singled_out}
    FROM unnest(CAST(:alert_ids AS uuid[]), CAST(:generations AS integer[]))
        WITH ORDINALITY AS one (alert_id, asked_generation, position)
    JOIN delivery USING (alert_id)
    CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS of_this_transaction
    WHERE target = :target AND generation <= asked_generation AND attempts <= :retries
        AND once_address IS NULL
        AND (state = 'pending' AND due_at <= now()
            OR :take_over AND state = 'sending' AND lease_until < now() AND NOT recalled)
    ORDER BY alert_id
    FOR NO KEY UPDATE OF delivery
)
UPDATE delivery SET
    state = 'sending', attempt = attempt + 1, attempts = attempts + 1, last_attempt_at = now(),
    error = CASE WHEN state = 'sending' THEN 'the worker of the attempt died' ELSE error END,
    lease_until = now() + make_interval(secs => :lease)
FROM asked WHERE (delivery.alert_id, delivery.target) = (asked.alert_id, asked.target)
RETURNING position - 1 AS position, delivery.alert_id, singled_out, {row}

-- name: claim_once
-- `taken_over`: from a dead worker, whose permit is to be returned.
WITH asked AS MATERIALIZED (
    SELECT alert_id, target, state = 'claimed' AS taken_over, {singled_out}
    FROM delivery
    WHERE alert_id = :alert_id AND target = :target
        AND generation <= :generation AND attempts <= :retries
        AND once_address IS NOT NULL
        AND (state = 'pending' AND due_at <= now() OR state = 'claimed' AND lease_until < now())
    FOR NO KEY UPDATE
)
UPDATE delivery SET
    state = 'claimed', attempt = attempt + 1, attempts = attempts + 1, last_attempt_at = now(),
    lease_until = now() + make_interval(secs => :lease)
FROM asked WHERE (delivery.alert_id, delivery.target) = (asked.alert_id, asked.target)
RETURNING taken_over, singled_out, {row}

-- name: see
SELECT state, generation, attempts, coalesce(lease_until < now(), false) AS lease_over,
    once_address IS NOT NULL AS once
FROM delivery WHERE alert_id = :alert_id AND target = :target

-- name: may_be_purged
-- Whether a row that existed at this time may have been purged since.
SELECT EXISTS (SELECT FROM ledger_total WHERE target = :target AND purged_until >= :at)

-- name: record
-- The attempt is written down whether or not its outcome still counts; the row moves only by CAS. A
-- pending row that lacks the attempt lost its claim in a crash of PostgreSQL: what arrived has arrived.
WITH made AS (
    SELECT * FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS one (
        position integer, alert_id uuid, target text, attempt integer, outcome text,
        attempt_reason text, status integer, seconds real, excerpt text, error text,
        state text, reason text, refund integer, delay float)
), locked AS MATERIALIZED (
    SELECT alert_id, target FROM delivery
    WHERE (alert_id, target) IN (SELECT alert_id, target FROM made)
    ORDER BY alert_id, target
    FOR NO KEY UPDATE
), noted AS (
    INSERT INTO attempt (alert_id, target, number, outcome, reason, status, seconds, excerpt)
    SELECT alert_id, target, attempt, outcome, attempt_reason, status, seconds, excerpt
    FROM locked JOIN made USING (alert_id, target)
    ON CONFLICT DO NOTHING
)
UPDATE delivery SET
    attempt = greatest(delivery.attempt, made.attempt),
    state = CASE WHEN recalled AND outcome <> 'delivered' THEN 'discarded' ELSE made.state END,
    reason = CASE WHEN recalled AND outcome <> 'delivered' THEN 'answered'
        ELSE made.reason END,
    lease_until = NULL, recalled = false,
    error = CASE WHEN outcome = 'delivered' THEN delivery.error ELSE made.error END,
    attempts = attempts - refund,
    due_at = now() + make_interval(secs => delay),
    finished_at = CASE WHEN made.state = 'pending' AND NOT recalled THEN NULL ELSE now() END
FROM locked JOIN made USING (alert_id, target)
WHERE (delivery.alert_id, delivery.target) = (locked.alert_id, locked.target)
    AND (delivery.attempt = made.attempt
            AND (delivery.state = 'sending' OR delivery.state = 'in_doubt' AND outcome = 'delivered')
        OR delivery.attempt = made.attempt - 1
            AND delivery.state = 'pending' AND outcome = 'delivered')
RETURNING position, delivery.state

-- name: move
UPDATE delivery SET
    state = :state, reason = coalesce(:reason, reason),
    attempts = attempts - CAST(:refund AS integer),
    lease_until = CASE WHEN :state = 'sending' THEN now() + make_interval(secs => :seconds) END,
    due_at = CASE WHEN :state = 'pending' THEN now() + make_interval(secs => :seconds)
                  ELSE due_at END,
    finished_at = CASE WHEN :state IN ('pending', 'sending') THEN NULL ELSE now() END
WHERE alert_id = :alert_id AND target = :target AND attempt = :attempt AND state = :before
RETURNING 1 AS matched

-- fragment: ended
alert_id, target, attempt, event_type, error, once_address, once_purpose, once_reference

-- name: exhaust
-- Fails a row without attempts left, whose last worker died.
UPDATE delivery SET
    state = 'failed', reason = 'exhausted', lease_until = NULL, finished_at = now(),
    error = coalesce(error, 'the worker of every attempt died')
WHERE alert_id = :alert_id AND target = :target
    AND generation <= :generation AND attempts > :retries AND NOT recalled
    AND (state = 'pending'
         OR lease_until < now() AND state = (
             CASE WHEN once_address IS NULL THEN 'sending' ELSE 'claimed' END))
RETURNING {ended}

-- name: mark_in_doubt
-- Ends a mail whose worker died after it may have written the terminator.
UPDATE delivery SET
    state = 'in_doubt', reason = 'crashed', lease_until = NULL, finished_at = now(),
    error = 'the worker died between handing over and recording it'
WHERE alert_id = :alert_id AND target = :target
    AND once_address IS NOT NULL AND state = 'sending' AND lease_until < now()
RETURNING {ended}
