-- fragment: these
-- Not a list of pairs: a sequential scan would compare each pair with each row.
(alert_id, target) IN (
    SELECT * FROM unnest(CAST(:alert_ids AS uuid[]), CAST(:targets AS text[])))

-- fragment: again
UPDATE delivery SET
    generation = generation + 1, due_at = now() + make_interval(secs => :later)

-- fragment: work
WHERE {these} RETURNING alert_id, target, generation, request_id, severity

-- name: requeue
{again} {work}

-- name: try_again
-- What is due after a failure.
{again}, reason = NULL {work}

-- name: reset
-- All attempts and all its time again. `attempt`, the fencing number, continues.
{again}, state = 'pending', attempts = 0, reason = NULL, finished_at = NULL, requeued_at = now(),
    operator = :operator, error = CASE WHEN :keep_error THEN error ELSE :error END
{work}

-- name: end
UPDATE delivery SET
    state = :state, reason = :reason, lease_until = NULL, recalled = false, finished_at = now(),
    operator = :operator,
    error = CASE WHEN :keep_error THEN coalesce(error, :error) ELSE :error END
WHERE {these}

-- fragment: may_be_sent
-- A mail whose terminator may be out is never requeued or ended here (`ending.mark_in_doubt`).
{open} AND NOT (state = 'sending' AND once_address IS NOT NULL)

-- fragment: which
-- Literal, as an index has the first; by the other index a backlog is not sorted for few rows.
(state = 'pending' AND severity = 'critical') = :critical

-- name: waiting
SELECT alert_id, target FROM delivery
WHERE {open} AND {which} AND state = 'pending' AND target = :target AND due_at > now()
ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: overdue
-- A queue delivers in order, and critical ones before: when another row is claimed, the message of
-- one that fell due `seconds` earlier is lost. A row of a dead worker is requeued once, after its
-- lease is over. `reached`: when the last claimed row had fallen due; NULL: the queues are empty.
SELECT alert_id, target FROM delivery
WHERE {may_be_sent} AND {which} AND target = :target
    AND due_at < now() - make_interval(secs => :seconds)
    AND (lease_until IS NULL OR lease_until < now() - make_interval(secs => :seconds))
    AND (CAST(:reached AS timestamptz) IS NULL OR due_at <= :reached
        AND (due_at < CAST(:reached AS timestamptz) - make_interval(secs => :seconds)
            OR due_at <= lease_until))
LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: open_after
-- Waits for locked rows: to skip a row whose outcome is being recorded would leave it without a
-- message. If that deadlocks with others, which lock by id, PostgreSQL aborts one transaction, which
-- is then repeated.
SELECT created_at, alert_id, target FROM delivery
WHERE {may_be_sent} AND {which} AND target = ANY(CAST(:targets AS text[]))
    AND (created_at, alert_id, target) > :after
ORDER BY created_at, alert_id, target LIMIT :limit FOR UPDATE

-- name: too_old
-- Rows of a target that no worker has claimed and that are older than this. Its second line is for
-- the index.
SELECT {bare} FROM delivery
WHERE {may_be_sent} AND target = :target AND (lease_until IS NULL OR lease_until < now())
    AND created_at < now() - make_interval(secs => :seconds)
    AND coalesce(requeued_at, created_at) < now() - make_interval(secs => :seconds)
ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: of_no_target
-- Rows of none of these targets that have been due for this long.
SELECT {bare} FROM delivery
WHERE {may_be_sent} AND NOT target = ANY(CAST(:targets AS text[]))
    AND due_at < now() - make_interval(secs => :seconds)
    AND (lease_until IS NULL OR lease_until < now() - make_interval(secs => :seconds))
ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED

-- fragment: replayable
-- What was delivered in this time: no mail to others, and no message about a case.
FROM delivery WHERE state = 'delivered' AND target = :target
    AND finished_at >= :since AND finished_at < :until AND payload IS NOT NULL
    AND once_address IS NULL AND NOT event_type = ANY(CAST(:never AS text[]))
    AND (CAST(:event_type AS text) IS NULL OR event_type = :event_type)

-- name: count_replayable
SELECT count(*) FROM (SELECT {replayable} LIMIT :limit) AS chosen

-- name: replayable
SELECT alert_id, target {replayable}
ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: payload_of
SELECT payload FROM delivery WHERE alert_id = :alert_id AND target = :target

-- name: purge
-- Rows that ended in this state long ago, oldest first; totals count them. Without its row, a late
-- duplicate of an accepted mail would count as new, and be sent again. So the rows of such mails
-- stay as long as a duplicate may be on its way.
WITH old AS (
    SELECT alert_id, target FROM delivery
    WHERE state = :state AND finished_at < now() - make_interval(secs => :seconds)
        AND finished_at >= :begin
        AND (once_address IS NULL
            OR finished_at < now() - make_interval(secs => {once_kept_seconds}))
    ORDER BY finished_at LIMIT :batch FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM delivery USING old
    WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
    RETURNING delivery.alert_id, delivery.target, finished_at
), escalations AS (
    DELETE FROM escalation USING gone
    WHERE (escalation.alert_id, escalation.target) = (gone.alert_id, gone.target)
), totalled AS (
    UPDATE ledger_total SET
        delivered = delivered + CASE WHEN :state = 'delivered' THEN purged.rows ELSE 0 END,
        discarded = discarded + CASE WHEN :state = 'discarded' THEN purged.rows ELSE 0 END,
        purged_until = greatest(purged_until, purged.last)
    FROM (SELECT target, count(*) AS rows, max(finished_at) AS last
        FROM gone GROUP BY target) AS purged
    WHERE ledger_total.target = purged.target
)
SELECT count(*) AS done, max(finished_at) AS last FROM gone

-- name: abandoned
-- Mails whose worker died after it may have written the terminator.
SELECT alert_id, target FROM delivery
WHERE state = 'sending' AND once_address IS NOT NULL AND lease_until < now()
LIMIT 500

-- name: discard_recalled
-- Ends the steps that were recalled in flight and whose worker died: none takes them over.
UPDATE delivery SET state = 'discarded', reason = 'answered', recalled = false,
    lease_until = NULL, finished_at = now(),
    error = 'the worker of the attempt died, and then its case was answered'
WHERE recalled AND lease_until < now()

-- name: forget
-- Empties rows that ended this long ago and are kept: failed, in doubt or discarded.
WITH old AS (
    SELECT alert_id, target FROM delivery
    WHERE {kept} AND payload IS NOT NULL AND finished_at >= :begin
        AND finished_at < now() - make_interval(secs => :seconds)
    ORDER BY finished_at LIMIT :batch FOR UPDATE SKIP LOCKED
), emptied AS (
    UPDATE delivery SET payload = NULL, dedup_key = NULL, subjects = '{}',
        once_address = CASE WHEN once_address IS NOT NULL THEN 'expired' END,
        error = CASE WHEN reason = 'manual' OR error IS NULL THEN error ELSE reason END
    FROM old WHERE delivery.alert_id = old.alert_id AND delivery.target = old.target
    RETURNING delivery.alert_id, delivery.target, finished_at
), quiet AS (
    UPDATE attempt SET excerpt = '' FROM emptied
    WHERE (attempt.alert_id, attempt.target) = (emptied.alert_id, emptied.target)
        AND excerpt <> ''
), sent AS (
    DELETE FROM escalation USING emptied
    WHERE (escalation.alert_id, escalation.target) = (emptied.alert_id, emptied.target)
        AND digest IS NOT NULL
), unsent AS (
    UPDATE escalation SET error = NULL FROM emptied
    WHERE (escalation.alert_id, escalation.target) = (emptied.alert_id, emptied.target)
        AND digest IS NULL
)
SELECT count(*) AS done, max(finished_at) AS last FROM emptied

-- name: continue_numbering
-- A permit belongs to one number.
UPDATE delivery SET attempt = :attempt
WHERE alert_id = :alert_id AND target = ANY(CAST(:targets AS text[])) AND attempt = 0

-- name: outbox_keys
SELECT DISTINCT routing_key FROM outbox

-- name: epoch
SELECT id FROM epoch

-- name: begin_epoch
INSERT INTO epoch (id) VALUES (:id) ON CONFLICT (single) DO UPDATE SET id = excluded.id
