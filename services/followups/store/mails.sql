-- name: take
INSERT INTO mail (key, kind, step_id, conversation_id, email, status)
VALUES (:key, :kind, :step, :conversation, :email, :status) ON CONFLICT DO NOTHING;

-- name: name
INSERT INTO chat_email (email, conversation_id)
SELECT email, :conversation FROM unnest(:emails) AS email ON CONFLICT DO NOTHING;

-- name: soft
-- Soft bounces of an address within a week.
SELECT count(*) FROM mail
WHERE email = :email AND kind = 'soft' AND received_at > now() - interval '7 days';

-- name: bury
INSERT INTO undeliverable (email, conversation_id, reason)
VALUES (:email, :conversation, :reason)
ON CONFLICT (email) DO UPDATE SET reason = excluded.reason, since = now();

-- name: try_again
WITH freed AS (
    UPDATE chat_conversations SET followups_ended_by = NULL
    WHERE email = :email AND followups_ended_by = 'bounce'
)
DELETE FROM undeliverable WHERE email = :email;

-- name: is_undeliverable
SELECT EXISTS (SELECT FROM undeliverable WHERE email = :email);

-- name: undeliverable
SELECT email, conversation_id, reason, since FROM undeliverable
WHERE email > :after ORDER BY email LIMIT :limit;

-- name: undeliverable_of
SELECT email FROM undeliverable WHERE conversation_id = :conversation;

-- name: out_of_reach
-- Open leads of an address that have no other contact.
SELECT lead.id, lead.language, known ->> 'name' AS name
FROM lead_contact JOIN lead ON lead.id = lead_id
WHERE contact = 'email:' || :email AND known ->> 'email' = :email AND known ->> 'phone' IS NULL
    AND state IN ('new', 'taken');

-- name: told_lately
SELECT count(*) FROM mail WHERE kind = 'unknown' AND told_at > now() - interval '1 hour';

-- name: told
UPDATE mail SET told_at = now() WHERE key = :key;

-- name: untold
-- Mails that staff were not told of one by one; once a day.
WITH told AS (
    UPDATE mail SET told_at = now() WHERE kind = 'unknown' AND told_at IS NULL AND EXISTS (
        SELECT FROM mail AS old WHERE old.kind = 'unknown' AND old.told_at IS NULL
            AND old.received_at < now() - interval '1 day')
    RETURNING key
), left_alone AS (
    UPDATE mailbox SET left_alone = 0, told_at = now()
    FROM mailbox AS before
    WHERE mailbox.name = before.name AND mailbox.left_alone > 0
        AND mailbox.told_at < now() - interval '1 day'
    RETURNING before.left_alone AS mails
)
SELECT (SELECT count(*) FROM told) + coalesce((SELECT sum(mails) FROM left_alone), 0) AS mails;

-- name: rates
-- Mails of the last day.
SELECT (SELECT count(*) FROM followup_event WHERE sent_at > now() - interval '1 day') AS sent,
    count(*) FILTER (WHERE kind IN ('hard', 'soft')) AS bounced,
    count(*) FILTER (WHERE kind = 'complaint') AS complained,
    count(*) FILTER (WHERE kind = 'reply') AS replied
FROM mail WHERE received_at > now() - interval '1 day';

-- name: returned
-- What came back of a conversation's mails, beside replies, which are part of it.
SELECT kind, coalesce(status, '') AS status, received_at FROM mail
WHERE conversation_id = :conversation AND kind IN ('hard', 'soft', 'complaint', 'unsubscribe')
ORDER BY received_at DESC LIMIT :limit;

-- name: forget
WITH addresses AS (
    DELETE FROM undeliverable WHERE since < now() - make_interval(days => :days)
)
DELETE FROM mail WHERE key IN (
    SELECT key FROM mail WHERE received_at < now() - make_interval(days => :days)
        OR conversation_id IS NULL AND received_at < now() - interval '30 days'
    LIMIT :limit);

-- name: erase
WITH gone AS (DELETE FROM undeliverable WHERE email = :email)
DELETE FROM mail WHERE email = :email;

-- name: place
SELECT validity, uid FROM mailbox WHERE name = :name;

-- name: move_place
INSERT INTO mailbox (name, validity, uid, left_alone) VALUES (:name, :validity, :uid, :more)
ON CONFLICT (name) DO UPDATE SET validity = excluded.validity, uid = excluded.uid,
    left_alone = mailbox.left_alone + excluded.left_alone;
