-- fragment: rows
SELECT {columns}, NULL AS once_address, CAST(subjects AS text[]) AS named
FROM alert_case WHERE subjects <> '{}'

-- fragment: page
ORDER BY alert_id OFFSET :begin_at LIMIT :batch

-- name: any
{rows} {page}

-- name: theirs
{rows} AND subjects && CAST(:hashes AS bytea[]) {page}

-- name: unname
UPDATE alert_case SET subjects = ARRAY(
    SELECT unnest(subjects) EXCEPT SELECT unnest(CAST(:hashes AS bytea[])))
WHERE alert_id = :case_id

-- name: forget
-- Empties some cases that ended this long ago.
WITH old AS (
    SELECT alert_id FROM alert_case
    WHERE ended_at < now() - make_interval(secs => :seconds)
        AND (payload IS NOT NULL OR subjects <> '{}')
    LIMIT :batch FOR UPDATE SKIP LOCKED
), quiet AS (
    UPDATE case_answer SET reason = NULL FROM old
    WHERE case_id = alert_id AND reason IS NOT NULL
), emptied AS (
    UPDATE alert_case SET payload = NULL, dedup_key = NULL, subjects = '{}'
    FROM old WHERE alert_case.alert_id = old.alert_id
    RETURNING alert_case.alert_id
)
SELECT count(*) AS done FROM emptied

-- name: purge
-- Deletes some cases that ended this long ago, with all that belongs to them, and counts them.
WITH old AS (
    SELECT alert_id FROM alert_case
    WHERE ended_at < now() - make_interval(secs => :seconds)
    LIMIT :batch FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM alert_case USING old WHERE alert_case.alert_id = old.alert_id
    RETURNING alert_case.alert_id, state
), escalations AS (
    DELETE FROM escalation USING gone
    WHERE escalation.alert_id = gone.alert_id AND target = 'cases'
), counted AS (
    UPDATE case_total SET count = count + purged.rows
    FROM (SELECT state, count(*) AS rows FROM gone GROUP BY state) AS purged
    WHERE term = purged.state
)
SELECT count(*) AS done FROM gone

-- name: empty
WITH said AS (
    UPDATE case_answer SET reason = NULL WHERE case_id = :case_id
), gone AS (
    DELETE FROM case_link WHERE case_id = :case_id
)
UPDATE alert_case SET payload = NULL, dedup_key = NULL, next_at = NULL WHERE alert_id = :case_id

-- name: unname_all
UPDATE alert_case SET subjects = '{}' WHERE alert_id = :case_id

-- name: overwriting
SELECT EXISTS (
    SELECT FROM case_place
    WHERE case_id = :case_id AND receipt IS NOT NULL AND want > coalesce(shown, 0)
        AND NOT (ordered = want AND EXISTS (
            SELECT FROM delivery WHERE delivery.alert_id = update_id AND state = 'failed'))
) AS due
