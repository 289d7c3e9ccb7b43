-- The tables of the Flask chatbot, as its users left them: times without a zone, rows twice, NULLs.
CREATE TYPE followup_status AS ENUM ('pending', 'sent', 'Sending');
CREATE TABLE chat_conversations (id serial, session_id text, email text, name text, phone text,
    budget numeric, messages json, created_at timestamp);
CREATE TABLE followup_event (id serial, conversation_id integer, followup_number integer,
    status followup_status,
    sent_at timestamp);
CREATE TABLE consent_audit_log (id serial, email text, action text, ip_address inet, user_agent text,
    "timestamp" text, reason text, session_id text);
CREATE TABLE dead_letter_queue (id serial, event_type text, target text, payload text,
    error_message text, retry_count integer, created_at timestamp, last_retry_at timestamp,
    status text);

INSERT INTO chat_conversations (session_id, email, name, phone, budget, messages, created_at)
SELECT 's' || n, format('p%s@{run}.example', n), 'Osoba ' || n, '+48 600 700 800', 1000 * n,
    '["cze\u0000ść"]', '2025-01-01'::timestamp + n * interval '1 hour' FROM generate_series(1, 150) AS n;
INSERT INTO chat_conversations (session_id, email, name, phone) VALUES
    ('s151', NULL, 'Bez adresu', '600700800'), ('s152', '', NULL, NULL), ('s153', 'to nie adres', NULL, NULL),
    ('s154', ' P1@{run}.EXAMPLE ', 'Osoba Jeden', NULL), ('s155', 'zly@{run}.example', 'Zła Liczba', 'oddzwonię'),
    (NULL, 'gone@{run}.example', 'Odwołana', NULL), ('s1', 'p2@{run}.example', NULL, NULL);

-- The first forty got one, twenty of them two; 41 to 60 wait; 61 may have got one; 62 has no date.
INSERT INTO followup_event (conversation_id, followup_number, status, sent_at)
SELECT n, 1, 'sent'::followup_status, '2025-02-01 08:00'::timestamp FROM generate_series(1, 40) AS n
UNION ALL SELECT n, 2, 'sent', '2025-02-05 08:00'::timestamp FROM generate_series(1, 20) AS n
UNION ALL SELECT n, 1, 'pending', NULL FROM generate_series(41, 60) AS n;
INSERT INTO followup_event (conversation_id, followup_number, status, sent_at) VALUES
    (1, 1, 'sent', '2025-02-01 08:00'), (61, 1, 'Sending', NULL), (62, 1, 'sent', NULL),
    (9999, 1, 'sent', '2025-02-01 08:00'), (63, NULL, 'sent', '2025-02-01 08:00'), (64, 1, NULL, NULL);

INSERT INTO consent_audit_log (email, action, ip_address, "timestamp")
SELECT format('p%s@{run}.example', n), 'opt-in', '203.0.113.7'::inet, '2025-01-10 12:00' FROM generate_series(1, 60) AS n
UNION ALL SELECT format('P%s@{run}.example', n), 'unsubscribe', NULL, '2025-03-01 00:30' FROM generate_series(51, 70) AS n;
INSERT INTO consent_audit_log (email, action, ip_address, "timestamp") VALUES
    ('p51@{run}.example', 'unsubscribe', NULL, '2025-03-02 00:30'), ('p51@{run}.example', 'opt-in', NULL, '2025-04-01'),
    ('gone@{run}.example', 'revoke-consent', NULL, NULL), ('p71@{run}.example', 'Opt_Out', NULL, 'infinity'),
    (NULL, 'unsubscribe', NULL, '2025-03-01'), ('p72@{run}.example', 'export', NULL, '2025-03-01'),
    ('p73@{run}.example', NULL, NULL, '2025-03-01'), ('p74@{run}.example', 'opt-in', NULL, '2016-01-01'),
    ('to nie adres', 'unsubscribe', NULL, '2025-03-01');

INSERT INTO dead_letter_queue (event_type, target, payload, created_at, status)
SELECT 'slack_alert', 'slack', json_build_object('text', format('{run} lead %s', n))::text, '2025-05-01'::timestamp + n * interval '1 day',
    CASE WHEN n % 3 = 0 THEN 'delivered' WHEN n % 3 = 1 THEN 'failed' ELSE 'pending' END FROM generate_series(1, 12) AS n;
INSERT INTO dead_letter_queue (event_type, target, payload, created_at, status) VALUES
    ('slack_alert', 'slack', '{"text": "{run} lead 1"}', '2025-05-02', 'failed'),
    ('slack_alert', 'https://hooks.slack.com/services/T0/B0/x', '{run} lead 13', '2025-05-20', NULL),
    ('slack_alert', 'slack', NULL, '2025-05-20', 'failed'), ('celery.task', 'slack', '{}', '2025-05-20', 'failed'),
    ('slack_alert', 'slack', '{"text": "{run} done"}', '2025-05-20', ' DELIVERED');
