-- fragment: of
(alert_id, target) = (:alert_id, :target)

-- name: shown
UPDATE case_place SET shown = greatest(shown, CAST(:want AS integer)),
    want = want + CAST(coalesce(shown > :want, false) AS integer),
    wanted_at = CASE WHEN shown > :want THEN now() ELSE wanted_at END,
    receipt = coalesce(:receipt, receipt)
WHERE {of}

-- name: rearm
UPDATE case_place SET want = want + 1, wanted_at = now(),
    receipt = coalesce(:receipt, receipt)
WHERE {of}

-- fragment: cases
FROM case_place JOIN alert_case ON case_place.case_id = alert_case.alert_id
    LEFT JOIN case_step ON case_step.alert_id = case_place.alert_id

-- name: due
-- Not the timer's answer, which gives a case back in its owner's name.
SELECT case_place.*, alert_case.state, outcome, request_id, case_step.person, (
        SELECT CASE WHEN via <> 'timer' THEN case_answer.person END FROM case_answer
        WHERE case_answer.case_id = case_place.case_id ORDER BY id DESC LIMIT 1
    ) AS answered_by
{cases}
WHERE {due} ORDER BY wanted_at LIMIT :batch FOR UPDATE OF case_place SKIP LOCKED

-- name: read
SELECT alert_case.*, want, receipt, case_step.generation AS step_generation, number,
    case_step.person, now() AS now
{cases}
WHERE case_place.alert_id = :alert_id AND case_place.target = :target
