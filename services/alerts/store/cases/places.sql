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
