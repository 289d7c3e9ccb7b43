-- name: add
-- One parameter for any number of rows: a VALUES list would be compiled each time.
INSERT INTO outbox (message_id, exchange, routing_key, type, body, headers, due_at)
SELECT given.*, now() + make_interval(secs => :later) FROM jsonb_to_recordset(:rows) AS given
    (message_id text, exchange text, routing_key text, type text, body jsonb, headers jsonb);

-- name: hold
{add} RETURNING id, due_at;

-- name: count
-- Only while it waits: a relay that has sent it defers or deletes it, and would not send more.
UPDATE outbox
SET body = jsonb_set(body, ARRAY['count'], to_jsonb(CAST(body ->> 'count' AS bigint) + :more))
WHERE id = :id AND due_at = :due_at AND due_at > now();

-- name: release
UPDATE outbox SET due_at = now() WHERE id = :id;

-- name: claim
-- The body as text: parsing and serialising it costs a tenth of a follow-up.
SELECT id, message_id, exchange, routing_key, type, CAST(body AS text) AS json, headers
FROM outbox WHERE due_at <= now() AND routing_key <> ALL(CAST(:late AS text[]))
ORDER BY due_at, id LIMIT :batch FOR UPDATE SKIP LOCKED;

-- name: delete
DELETE FROM outbox WHERE id = ANY(CAST(:ids AS bigint[]));

-- name: defer
-- Not now(), the start of the transaction: the wait for the confirm came after it.
UPDATE outbox SET due_at = clock_timestamp() + make_interval(secs => :seconds)
WHERE id = ANY(CAST(:ids AS bigint[]));

-- name: length
-- 1,000 at most.
SELECT count(*) FROM (SELECT FROM outbox LIMIT 1000) AS waiting;

-- name: measure
-- A commit waits until a standby confirms it; no time-out of the server ends that.
SELECT coalesce(extract(epoch FROM now() - (SELECT created_at FROM outbox ORDER BY id LIMIT 1)), 0)
    AS lag,
    EXISTS (SELECT FROM pg_stat_activity WHERE usename = current_user
        AND wait_event = 'SyncRep' AND state_change < now() - interval '2 s') AS waits;
