-- name: watch
INSERT INTO heartbeat_watch (name, event_type, next_at)
SELECT name, name, at
FROM unnest(CAST(:names AS text[]), CAST(:times AS timestamptz[])) AS given (name, at)
ORDER BY name ON CONFLICT DO NOTHING

-- name: forget
DELETE FROM heartbeat_watch
WHERE event_type IS NOT NULL AND event_type <> ALL(CAST(:names AS text[]))

-- fragment: rows
SELECT {columns} FROM heartbeat_watch

-- name: listed
{rows} ORDER BY name, id

-- name: find
{rows} WHERE id = :id

-- name: lock
{find} FOR UPDATE

-- name: lock_events
{rows} WHERE event_type = ANY(CAST(:event_types AS text[])) ORDER BY id FOR UPDATE

-- fragment: over
(event_type IS NULL OR event_type = ANY(CAST(:event_types AS text[])))
    AND case_id IS NULL AND next_at <= :before

-- name: any_over
SELECT EXISTS (SELECT FROM heartbeat_watch WHERE {over})

-- name: lock_over
-- Those whose deadline was over by then and that have no case.
{rows} WHERE {over} ORDER BY id FOR UPDATE SKIP LOCKED

-- name: log
INSERT INTO heartbeat_ping (id, heartbeat, at, kind, code, log)
VALUES (:id, :heartbeat, :at, :kind, :code, :log) ON CONFLICT DO NOTHING

-- name: forget_older
DELETE FROM heartbeat_ping WHERE id IN (
    SELECT id FROM heartbeat_ping WHERE heartbeat = :heartbeat ORDER BY at DESC, id OFFSET {kept})

-- name: pings
SELECT kind, at, code, log FROM heartbeat_ping
WHERE heartbeat = :id ORDER BY at DESC LIMIT :limit

-- name: count
SELECT count(*) FROM heartbeat_watch

-- name: remove
DELETE FROM heartbeat_watch WHERE id = :id

-- name: purge
DELETE FROM heartbeat_ping WHERE at < now() - make_interval(secs => :seconds)
