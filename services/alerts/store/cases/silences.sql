-- name: open_keys
SELECT alert_id, target FROM (
    (SELECT alert_id, target FROM delivery WHERE {open} ORDER BY created_at DESC LIMIT :batch)
    UNION (
        SELECT alert_id, target FROM (
            SELECT alert_id FROM alert_case WHERE state IN ('open', 'unanswered')
            ORDER BY opened_at DESC LIMIT :batch
        ) AS cases JOIN delivery USING (alert_id)
    )
) AS keys ORDER BY alert_id, target
