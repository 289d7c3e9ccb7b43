-- fragment: of
(alert_id, target) = (:alert_id, :target)

-- name: shown
-- What a place shows, in the transaction that records the delivery there: `want` as it was when the
-- message was written, and the receipt that identifies it for changes. An alert that is retried after
-- its place was updated asks again below that update, so the place is due again.
UPDATE case_place SET shown = greatest(shown, CAST(:want AS integer)),
    want = want + CAST(coalesce(shown > :want, false) AS integer),
    wanted_at = CASE WHEN shown > :want THEN now() ELSE wanted_at END,
    receipt = coalesce(:receipt, receipt)
WHERE {of}

-- name: rearm
-- Makes due a place that a worker may have changed after another took over: what it sent, whose
-- receipt this is, may be older than what was sent since. A counter, as a flag would be wiped by the
-- record of the other worker.
UPDATE case_place SET want = want + 1, wanted_at = now(),
    receipt = coalesce(:receipt, receipt)
WHERE {of}

-- fragment: cases
FROM case_place JOIN alert_case ON case_place.case_id = alert_case.alert_id
    LEFT JOIN case_step ON case_step.alert_id = case_place.alert_id

-- name: ordered
-- Without an update it counts as up to date: its person knows.
UPDATE case_place SET
    ordered = CASE WHEN given.update_id IS NULL THEN ordered ELSE want END,
    shown = CASE WHEN given.update_id IS NULL THEN want ELSE shown END,
    update_id = coalesce(given.update_id, case_place.update_id)
FROM unnest(CAST(:ids AS uuid[]), CAST(:targets AS text[]), CAST(:updates AS uuid[]))
    AS given (id, name, update_id)
WHERE (alert_id, target) = (id, name)

-- name: due
-- Not the timer's answer, which gives a case back in its owner's name.
SELECT {columns}, alert_case.state, outcome, request_id, case_step.person, (
        SELECT CASE WHEN via <> 'timer' THEN case_answer.person END FROM case_answer
        WHERE case_answer.case_id = case_place.case_id ORDER BY id DESC LIMIT 1
    ) AS answered_by
{cases}
WHERE {due} ORDER BY wanted_at LIMIT :batch FOR UPDATE OF case_place SKIP LOCKED

-- name: read
SELECT {case}, want, receipt, case_step.generation AS step_generation, number,
    case_step.person, now() AS now
{cases}
WHERE case_place.alert_id = :alert_id AND case_place.target = :target
