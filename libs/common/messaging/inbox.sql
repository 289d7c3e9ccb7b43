-- name: record
INSERT INTO inbox (consumer, message_id) VALUES (:consumer, :message_id) ON CONFLICT DO NOTHING;

-- name: purge
DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox
    WHERE received_at < now() - make_interval(secs => :seconds) LIMIT :batch));
