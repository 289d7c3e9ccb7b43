-- fragment: listed
-- What the values make constant the planner leaves out: it uses the partial indexes.
('pending' = ANY(CAST(:lists AS text[])) AND {open}
    OR 'failed' = ANY(CAST(:lists AS text[])) AND {kept} AND state = 'failed'
    OR 'in_doubt' = ANY(CAST(:lists AS text[])) AND {kept} AND state = 'in_doubt'
    OR 'silenced' = ANY(CAST(:lists AS text[])) AND {kept} AND state = 'discarded'
        AND reason = 'silenced'
    OR 'either' = ANY(CAST(:lists AS text[])) AND ({open} OR state = 'failed'))

-- fragment: chosen
-- greatest() leaves out NULLs.
(CAST(:ids AS uuid[]) IS NULL OR alert_id = ANY(CAST(:ids AS uuid[])))
AND (CAST(:target AS text) IS NULL OR target = :target)
AND (CAST(:event_type AS text) IS NULL OR event_type = :event_type)
AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
AND (CAST(:until AS timestamptz) IS NULL OR created_at < :until)
AND (CAST(:as_of AS timestamptz) IS NULL
    OR greatest(created_at, requeued_at, finished_at) < :as_of)

-- fragment: page
FROM delivery WHERE {listed} AND {chosen} AND (created_at, alert_id, target) > :after

-- fragment: order
ORDER BY created_at, alert_id, target LIMIT :limit

-- name: paged
SELECT {of_delivery}, octet_length(CAST(payload AS text)) AS size {page} {order}

-- name: bare
SELECT {of_bare} {page} {order}

-- fragment: retriable
-- A retry does nothing for a row with all attempts left whose message is queued or on its way, nor
-- for one that a retry requeued a moment ago, whose message waits in the outbox.
SELECT {of_bare} {page} AND (NOT :retriable OR payload IS NOT NULL AND (
    state <> 'pending' OR attempts > 0
    OR due_at > now() AND (requeued_at IS NULL OR reason IS NOT NULL)))
{order}

-- name: locked
{retriable} FOR UPDATE SKIP LOCKED

-- name: waited_for
{retriable} FOR UPDATE

-- name: count
SELECT count(*), count(*) FILTER (WHERE payload IS NULL) AS empty
FROM delivery WHERE (CAST(:lists AS text[]) = '{}' OR {listed}) AND {chosen}

-- name: stats
-- One statement, so one snapshot: delivered is what remains of accepted.
-- Open rows are counted by target alone, from the index delivery_due: its order is about that of the
-- table, which must be read for each row on a page not yet marked all-visible. Counted together with
-- the oldest, PostgreSQL used delivery_open, jumped between pages and took three times as long.
WITH counted AS (
    SELECT target, count(*) AS pending FROM delivery WHERE {open} GROUP BY target
), open AS (
    SELECT target, pending, (
        SELECT CAST(extract(epoch FROM now() - created_at) AS float) FROM delivery
        WHERE {open} AND delivery.target = counted.target ORDER BY created_at LIMIT 1
    ) AS oldest
    FROM counted
), kept AS (
    SELECT target,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'discarded') AS discarded,
        count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt
    FROM delivery WHERE {kept} GROUP BY target
)
SELECT *, accepted - pending - failed - discarded - in_doubt AS delivered FROM (
    SELECT target, accepted, duplicates,
        coalesce(open.pending, 0) AS pending,
        ledger_total.failed + coalesce(kept.failed, 0) AS failed,
        ledger_total.discarded + coalesce(kept.discarded, 0) AS discarded,
        coalesce(kept.in_doubt, 0) AS in_doubt,
        oldest AS oldest_pending_seconds
    FROM ledger_total LEFT JOIN open USING (target) LEFT JOIN kept USING (target)
) AS numbers

-- name: take_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: check
WITH total AS (
    SELECT coalesce(sum(accepted), 0) AS accepted, coalesce(sum(delivered), 0) AS delivered,
        coalesce(sum(failed), 0) AS failed, coalesce(sum(discarded), 0) AS discarded,
        coalesce(sum(duplicates), 0) AS duplicates
    FROM ledger_total
), kept AS (
    SELECT count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'discarded') AS discarded,
        count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt
    FROM delivery WHERE {kept}
), stranded AS (
    SELECT count(*) AS rows FROM delivery
    WHERE {open} AND target = ANY(CAST(:targets AS text[]))
        AND due_at < now() - make_interval(secs => :seconds)
        AND (lease_until IS NULL OR lease_until < now() - make_interval(secs => :seconds))
)
SELECT total.accepted, total.duplicates,
    total.delivered,
    (SELECT count(*) FROM delivery WHERE {open}) AS pending,
    total.failed + kept.failed AS failed,
    total.discarded + kept.discarded AS discarded,
    kept.in_doubt, stranded.rows AS stranded
FROM total, kept, stranded

-- name: delivered
-- One slice of the index, with all rows that ended at the same moment, so that no statement runs
-- into its time-out.
SELECT count(*) AS rows, max(finished_at) AS last FROM (
    SELECT finished_at FROM delivery
    WHERE state = 'delivered' AND finished_at > :begin
    ORDER BY finished_at FETCH FIRST :batch ROWS WITH TIES
) AS slice

-- name: claim_check
-- A time in the future, after the clock was set back, counts as none.
UPDATE ledger_check SET at = now()
WHERE at NOT BETWEEN now() - make_interval(secs => :seconds) AND now() OR found IS NULL
RETURNING at

-- name: last
SELECT found FROM ledger_check

-- name: keep
UPDATE ledger_check SET found = :found

-- name: find
-- Its rows by target, with every attempt to deliver each; or those of the first one that it
-- repeats: then `duplicate_of` is that one's id.
SELECT {of_delivery}, duplicate_of, asked_by, asked_at, coalesce((
        SELECT jsonb_agg(jsonb_build_object('attempt', number, 'at', ended_at, 'seconds',
            round(CAST(seconds AS numeric), 4), 'outcome', outcome, 'reason', attempt.reason,
            'status', status, 'excerpt', excerpt) ORDER BY number)
        FROM attempt WHERE (attempt.alert_id, attempt.target) = (delivery.alert_id, delivery.target)
    ), '[]') AS history
FROM (
    SELECT alert_id, target, CAST(NULL AS uuid) AS duplicate_of, request_id AS asked_by,
        accepted_at AS asked_at
    FROM delivery WHERE alert_id = :alert_id
    UNION ALL SELECT first_id, target, first_id, request_id, accepted_at
    FROM duplicate WHERE alert_id = :alert_id
) AS asked JOIN delivery USING (alert_id, target) ORDER BY target

-- name: ping
SELECT 1
