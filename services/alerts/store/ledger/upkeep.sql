-- name: abandoned
SELECT alert_id, target FROM delivery
WHERE state = 'sending' AND once_address IS NOT NULL AND lease_until < now()
LIMIT 500

-- name: discard_recalled
UPDATE delivery SET state = 'discarded', reason = 'answered', recalled = false,
    lease_until = NULL, finished_at = now(),
    error = 'the worker of the attempt died, and then its case was answered'
WHERE recalled AND lease_until < now()

-- name: forget
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
UPDATE delivery SET attempt = :attempt
WHERE alert_id = :alert_id AND target = ANY(CAST(:targets AS text[])) AND attempt = 0
