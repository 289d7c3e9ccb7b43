-- name: check
WITH counted AS (
        SELECT state AS term, count(*) AS rows FROM alert_case GROUP BY state
        UNION ALL SELECT term, count FROM case_total
    ), unanswered AS (
        SELECT alert_id, generation, jsonb_array_length(chain) AS steps
        FROM alert_case WHERE state = 'unanswered'
    )
    SELECT
    coalesce(sum(rows) FILTER (WHERE term = 'opened'), 0) AS opened,
    coalesce(sum(rows) FILTER (WHERE term = 'open'), 0) AS open,
    coalesce(sum(rows) FILTER (WHERE term = 'answered'), 0) AS answered,
    coalesce(sum(rows) FILTER (WHERE term = 'unanswered'), 0) AS unanswered,
    coalesce(sum(rows) FILTER (WHERE term = 'cancelled'), 0) AS cancelled,
        (SELECT count(*) FROM alert_case
            WHERE next_at < now() - interval '1 minute' OR failures > 1)
            + (SELECT count(*) FROM heartbeat_watch
                WHERE case_id IS NULL AND next_at < now() - interval '1 minute') AS stranded,
        (SELECT count(*) FROM unanswered WHERE steps > (
            SELECT count(*) FROM case_step WHERE case_id = unanswered.alert_id
                AND case_step.generation = unanswered.generation)) AS missing,
        (SELECT count(*) FROM unanswered WHERE NOT EXISTS (
            SELECT FROM escalation WHERE escalation.alert_id = unanswered.alert_id
                AND target = 'cases')) AS unlisted,
        (SELECT count(*) FROM alert_case WHERE state = 'answered' AND NOT EXISTS (
            SELECT FROM case_answer
            WHERE case_id = alert_case.alert_id AND person = owner)) AS ownerless,
        (SELECT count(*) FROM case_place
            WHERE {due} AND wanted_at < now() - interval '10 minutes') AS updates_overdue,
        (SELECT count(*) FROM unanswered WHERE EXISTS (
            SELECT FROM case_step JOIN delivery USING (alert_id)
            WHERE case_id = unanswered.alert_id AND state = 'failed'
                AND case_step.generation = unanswered.generation)) AS undelivered
    FROM counted

-- name: page
-- The oldest first. `leads`: only those about leads, or only others; `closed`: only those with an
-- outcome or cancelled, or only others; `after`: the last one of the page before.
SELECT {columns} FROM alert_case
WHERE (CAST(:state AS text) IS NULL OR state = :state)
    AND (CAST(:owner AS text) IS NULL OR owner = :owner)
    AND (CAST(:leads AS boolean) IS NULL OR (source = 'followups') = :leads)
    AND (CAST(:closed AS boolean) IS NULL
        OR (outcome IS NOT NULL OR state = 'cancelled') = :closed)
    AND (CAST(:after AS uuid) IS NULL OR (opened_at, alert_id) > (
        SELECT opened_at, alert_id FROM alert_case WHERE alert_id = :after))
ORDER BY opened_at, alert_id LIMIT :limit

-- name: case
SELECT {columns} FROM alert_case WHERE alert_id = :case_id

-- name: steps
-- The state is null once the ledger has purged its row.
SELECT alert_id, case_step.generation, number, target, person, handed_out_at, state, reason,
    error AS error_message
FROM case_step LEFT JOIN delivery USING (alert_id, target)
WHERE case_id = :case_id ORDER BY case_step.generation, number

-- name: answers
SELECT verb AS answer, person AS by, name, via, at, reason, until, generation
FROM case_answer WHERE case_id = :case_id ORDER BY id

-- name: places
SELECT alert_id, target, want <= coalesce(shown, 0) AS up_to_date
FROM case_place WHERE case_id = :case_id ORDER BY alert_id, target
