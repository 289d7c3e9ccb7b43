-- What the Flask chatbot stored. Each query returns where a row comes from, why it is left out (NULL:
-- it is taken), and what of it is sent, by name. Times without a zone are in the session's; as text,
-- because a driver knows fewer times than PostgreSQL.

-- name: withdrawals
-- One for each address, whatever its spelling of case; a time that cannot be is 1970.
SELECT concat('consent_audit_log ', max(id::text)), NULL, min(trim(email)) AS email, coalesce(
    max("timestamp"::timestamptz) FILTER (
        WHERE "timestamp"::timestamptz BETWEEN '1970-01-01' AND now()
    ),
    '1970-01-01'
)::text AS withdrawn_at
FROM consent_audit_log
WHERE action::text ~* 'unsub|revoke|withdraw|opt.?out|eras|delet' AND trim(email) <> ''
GROUP BY lower(trim(email)) ORDER BY 1;

-- name: followups
-- What may have been sent counts as sent.
SELECT concat('followup_event ', step.id),
    CASE WHEN sent_at IS NULL AND lower(trim(step.status::text)) IN
        ('pending', 'scheduled', 'queued', 'failed', 'cancelled', 'canceled', 'skipped')
        THEN 'not sent: enrol whom you still want to write to'
    WHEN coalesce(trim(email), '') = '' THEN 'no e-mail address' END,
    email, followup_number, coalesce(sent_at::timestamptz, now())::text AS followup_sent_at
FROM followup_event AS step
LEFT JOIN chat_conversations AS talk ON talk.id::text = step.conversation_id::text
ORDER BY step.id;

-- name: columns
-- Which columns that an import knows this table has, whatever else it has.
SELECT attname FROM pg_attribute WHERE attrelid = 'chat_conversations'::regclass
    AND attname IN ('name', 'phone', 'language', 'wish', 'area', 'budget', 'currency', 'start');

-- name: conversations
SELECT concat('chat_conversations ', id),
    CASE WHEN coalesce(trim(email), '') = '' THEN 'no e-mail address'
    WHEN EXISTS (
        SELECT FROM consent_audit_log AS log
        WHERE action::text ~* 'revoke|eras|delet' AND lower(trim(log.email)) = lower(trim(talk.email))
    ) THEN 'revoked consent: only the withdrawal is taken' END,
    email {columns}
FROM chat_conversations AS talk ORDER BY id;

-- name: consents
-- Whoever withdrew anywhere in the log agrees nowhere in it.
SELECT concat('consent_audit_log ', id),
    CASE WHEN coalesce(trim(email), '') = '' THEN 'no e-mail address'
    WHEN action IS NULL OR action::text !~* '^ *opt.?in *$' THEN concat('unknown action ', left(action::text, 40))
    WHEN EXISTS (
        SELECT FROM consent_audit_log AS other
        WHERE action::text ~* 'unsub|revoke|withdraw|opt.?out|eras|delet'
            AND lower(trim(other.email)) = lower(trim(log.email))
    ) THEN 'withdrew, too: ask anew'
    WHEN %(wording)s IS NULL THEN 'no --wording says to what they agreed' END,
    email, %(wording)s::text AS consent_text, "timestamp"::timestamptz::text AS consent_at,
    concat('consent_audit_log ', id) AS consent_source,
    split_part(ip_address::text, '/', 1) AS consent_ip
FROM consent_audit_log AS log
WHERE action IS NULL OR action::text !~* 'unsub|revoke|withdraw|opt.?out|eras|delet'
    OR coalesce(trim(email), '') = ''
ORDER BY id;

-- name: alerts
-- A target that is a URL is left to the routes. The time is only in the key: see tier1.py.
SELECT concat('dead_letter_queue ', id), CASE WHEN payload IS NULL THEN 'no payload' END,
    event_type::text, payload, CASE WHEN target !~ '://' THEN trim(target) END AS target,
    created_at::timestamptz::text AS at
FROM dead_letter_queue WHERE lower(trim(status::text)) IS DISTINCT FROM 'delivered' ORDER BY id;
