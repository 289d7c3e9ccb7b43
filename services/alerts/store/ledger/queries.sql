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
SELECT target, accepted, duplicates,
    coalesce(open.pending, 0) AS pending,
    ledger_total.failed + coalesce(kept.failed, 0) AS failed,
    ledger_total.discarded + coalesce(kept.discarded, 0) AS discarded,
    coalesce(kept.in_doubt, 0) AS in_doubt,
    oldest AS oldest_pending_seconds
FROM ledger_total LEFT JOIN open USING (target) LEFT JOIN kept USING (target)

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
SELECT delivery.*, CAST(NULL AS uuid) AS duplicate_of, request_id AS asked_by,
    accepted_at AS asked_at
FROM delivery WHERE alert_id = :alert_id
UNION ALL SELECT delivery.*, first_id, duplicate.request_id, duplicate.accepted_at
FROM duplicate JOIN delivery
    ON (delivery.alert_id, delivery.target) = (first_id, duplicate.target)
WHERE duplicate.alert_id = :alert_id ORDER BY target

-- name: attempts
SELECT * FROM attempt WHERE alert_id = ANY(CAST(:alert_ids AS uuid[])) ORDER BY target, number
