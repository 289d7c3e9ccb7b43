-- name: now
SELECT now() AS now

-- name: clock
SELECT clock_timestamp() AS at

-- name: open
-- Only for rows that this transaction has inserted: a redelivered alert opens nothing.
WITH given AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS one (
        alert_id uuid, chain jsonb, hours text, next_at timestamptz, asks jsonb,
        silence bigint, case_id uuid, rises boolean)
), fresh AS (
    SELECT DISTINCT ON (alert_id) given.*, event_type, severity, source, caller, dedup_key,
        request_id, payload, subjects, accepted_at
    FROM given JOIN delivery USING (alert_id)
    WHERE created_at = now() AND (state = 'pending' OR reason = 'silenced')
    ORDER BY alert_id
), opened AS (
    INSERT INTO alert_case (alert_id, event_type, severity, source, caller, dedup_key,
        request_id, payload, subjects, accepted_at, chain, hours, next_at, silence)
    SELECT alert_id, event_type, severity, source, caller, dedup_key,
        request_id, payload, subjects, accepted_at, chain, hours, next_at, silence
    FROM fresh WHERE case_id = alert_id
    ON CONFLICT DO NOTHING
    RETURNING alert_id
), risen AS (
    UPDATE alert_case SET severity = fresh.severity, payload = fresh.payload,
        subjects = alert_case.subjects || fresh.subjects, version = version + 1,
        next_at = least(alert_case.next_at, fresh.next_at)
    FROM fresh WHERE rises AND alert_case.alert_id = case_id
), placed AS (
    INSERT INTO case_place (alert_id, target, case_id)
    SELECT alert_id, target, case_id
    FROM fresh, LATERAL jsonb_array_elements_text(asks) AS asked (target)
    WHERE case_id <> alert_id OR alert_id IN (SELECT alert_id FROM opened)
), counted AS (
    UPDATE case_total SET count = count + opened.cases
    FROM (SELECT count(*) AS cases FROM opened) AS opened
    WHERE term = 'opened' AND opened.cases > 0
)
SELECT count(*) AS opened FROM opened

-- name: failed
-- Puts it off; the second time, it is listed.
WITH failed AS (
    UPDATE alert_case SET failures = failures + 1, next_at = now() + interval '30 s'
    WHERE alert_id = :case_id AND next_at <= now()
    RETURNING alert_id, event_type, failures
)
INSERT INTO escalation (alert_id, target, event_type, reason, error)
SELECT alert_id, 'cases', event_type, 'timer', :error FROM failed WHERE failures = 2

-- name: tick
WITH given AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS one (
        case_id uuid, generation integer, number integer, alert_id uuid, target text,
        person text, state text, step integer, next_at timestamptz, reminded boolean,
        chain jsonb)
), stepped AS (
    INSERT INTO case_step (case_id, generation, number, alert_id, target, person)
    SELECT case_id, generation, number, alert_id, target, person
    FROM given WHERE alert_id IS NOT NULL
), placed AS (
    INSERT INTO case_place (alert_id, target, case_id)
    SELECT alert_id, target, case_id FROM given WHERE alert_id IS NOT NULL
), moved AS (
    UPDATE alert_case SET state = given.state, step = given.step, next_at = given.next_at,
        version = version + 1, reminded = alert_case.reminded OR given.reminded, failures = 0,
        chain = CASE WHEN jsonb_typeof(given.chain) = 'array' THEN given.chain
            ELSE alert_case.chain END,
        told = CASE WHEN given.state = 'answered' AND given.alert_id IS NOT NULL
            THEN number - given.step + 1 ELSE told END, wished = false,
        ended_at = CASE WHEN given.state = 'unanswered' THEN now() ELSE ended_at END
    FROM given WHERE alert_case.alert_id = case_id
    RETURNING alert_case.alert_id, event_type, alert_case.state
), mended AS (
    DELETE FROM escalation USING given
    WHERE escalation.alert_id = case_id AND escalation.target = 'cases' AND digest IS NULL
), listed AS (
    INSERT INTO escalation (alert_id, target, event_type, reason)
    SELECT alert_id, 'cases', event_type, 'unanswered' FROM moved WHERE state = 'unanswered'
)
UPDATE case_place SET want = want + 1, wanted_at = now()
FROM moved WHERE case_id = moved.alert_id AND moved.state = 'unanswered'

-- name: not_listed
DELETE FROM escalation WHERE alert_id = :case_id AND target = 'cases' AND digest IS NULL

-- name: recall
-- Discards pending steps, the reminder, and their fallbacks. Those in flight end with their attempt
-- and are not retried (`record` of the ledger's transitions).
WITH mine AS MATERIALIZED (
    SELECT delivery.alert_id, delivery.target
    FROM case_step JOIN delivery USING (alert_id)
    WHERE case_id = :case_id AND state IN ('pending', 'sending')
    ORDER BY delivery.alert_id, delivery.target
    FOR NO KEY UPDATE OF delivery
)
UPDATE delivery SET
    recalled = state = 'sending',
    reason = CASE WHEN state = 'pending' THEN 'answered' ELSE reason END,
    finished_at = CASE WHEN state = 'pending' THEN now() END,
    state = CASE WHEN state = 'pending' THEN 'discarded' ELSE state END
FROM mine
WHERE (delivery.alert_id, delivery.target) = (mine.alert_id, mine.target)

-- name: lock_of_keys
-- `fired_at`: when its last alert was accepted; `told_at`: where the own messages of its alerts are
-- changed, or written from the case as it then stands.
SELECT {columns}, greatest(accepted_at, (
        SELECT max(coalesce(fired_at, delivery.accepted_at))
        FROM case_place JOIN delivery USING (alert_id, target)
        WHERE case_id = alert_case.alert_id AND delivery.event_type = alert_case.event_type
    )) AS fired_at, ARRAY(
        SELECT target FROM case_place LEFT JOIN case_step USING (alert_id, target)
        WHERE case_place.case_id = alert_case.alert_id AND case_step.alert_id IS NULL
            AND (receipt IS NOT NULL OR shown IS NULL)
    ) AS told_at
FROM alert_case
WHERE dedup_key = ANY(CAST(:dedup_keys AS text[])) AND state <> 'cancelled' AND outcome IS NULL
ORDER BY alert_id FOR UPDATE OF alert_case

-- name: bring_forward
-- Makes the next step due now, because the last one sent has finally failed.
UPDATE alert_case SET next_at = now()
FROM case_step
WHERE case_step.alert_id = :alert_id AND case_id = alert_case.alert_id
    AND state = 'open' AND next_at > now()
    AND alert_case.generation = case_step.generation AND step = number + 1

-- name: lock_of
SELECT case_step.alert_id IS NULL OR alert_case.generation = case_step.generation
    AND (state IN ('open', 'unanswered')
        OR next_at IS NOT NULL AND number = step + greatest(told, 1) - 1) AS runs
FROM alert_case LEFT JOIN case_step
    ON case_id = alert_case.alert_id AND case_step.alert_id = :alert_id
WHERE alert_case.alert_id = (
    SELECT case_id FROM case_place WHERE alert_id = :alert_id LIMIT 1)
FOR NO KEY UPDATE OF alert_case

-- name: due_ids
SELECT alert_id FROM alert_case WHERE next_at <= now() ORDER BY next_at LIMIT :batch

-- name: due
-- Those of these that still are; locked ones are being moved.
SELECT {columns}, CAST(subjects AS text[]) AS named FROM alert_case
WHERE next_at <= now() AND alert_id = ANY(CAST(:alert_ids AS uuid[]))
ORDER BY next_at FOR UPDATE SKIP LOCKED

-- name: limit
-- Slack waits 3 s for the response to a press.
SET LOCAL statement_timeout = 2000

-- name: lock
SELECT {columns}, CAST(subjects AS text[]) AS named FROM alert_case WHERE alert_id = :case_id FOR UPDATE

-- name: lock_forgotten
-- Its owner was reminded, and it is still due.
SELECT {columns} FROM alert_case WHERE alert_id = :case_id AND reminded AND next_at <= now() FOR UPDATE

-- name: answered_before
SELECT {answer} FROM case_answer WHERE case_id = :case_id AND key = :key

-- name: laters
SELECT at, until FROM case_answer WHERE case_id = :case_id AND verb = 'later'

-- fragment: nobody
state = 'unanswered' OR failures > 1

-- name: count_unanswered
SELECT count(*) AS cases FROM alert_case WHERE {nobody}

-- name: unanswered
SELECT alert_id, event_type, opened_at, failures,
    left(coalesce(payload->>'subject', payload->>'text'), 200) AS said
FROM alert_case WHERE {nobody}
ORDER BY opened_at LIMIT :batch

-- name: add_link
-- It is valid for a week from now.
INSERT INTO case_link (hash, case_id, person, generation, expires_at)
VALUES (:hash, :case_id, :person, :generation, now() + interval '7 days')
ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at

-- name: of_link
-- The case of a link that is still valid, with the link's `person`, and `now`.
SELECT {columns}, case_link.person, now() AS now
FROM case_link JOIN alert_case ON case_id = alert_id
WHERE hash = :hash AND expires_at > now()

-- name: purge_links
DELETE FROM case_link WHERE expires_at <= now()
