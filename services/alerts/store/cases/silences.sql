-- name: running
-- Those that are not over, by their end.
SELECT {silence} FROM silence WHERE ends > now() ORDER BY ends

-- name: since
SELECT {silence} FROM silence WHERE ends > :at ORDER BY id

-- name: lock_since
{since} FOR SHARE

-- name: alone
-- So that many at once make no more than may be.
LOCK TABLE silence IN SHARE ROW EXCLUSIVE MODE

-- name: open_keys
-- The keys of the newest deliveries that are open, or whose case is.
SELECT alert_id, target FROM (
    (SELECT alert_id, target FROM delivery WHERE {open} ORDER BY created_at DESC LIMIT :batch)
    UNION (
        SELECT alert_id, target FROM (
            SELECT alert_id FROM alert_case WHERE state IN ('open', 'unanswered')
            ORDER BY opened_at DESC LIMIT :batch
        ) AS cases JOIN delivery USING (alert_id)
    )
) AS keys ORDER BY alert_id, target

-- name: rows
SELECT {delivery} FROM delivery
JOIN unnest(CAST(:ids AS uuid[]), CAST(:targets AS text[])) AS given (id, name)
    ON (alert_id, target) = (id, name)

-- name: end
UPDATE silence SET ends = now() WHERE id = :id AND ends > now()

-- name: let_ask
-- A generation of 0: nobody has put it off.
UPDATE alert_case SET next_at = now()
WHERE silence = :id AND state = 'open' AND generation = 0 AND step = 0

-- name: purge
DELETE FROM silence WHERE ends < now() - interval '365 days'
