-- consent_audit_log: append-only; its trigger sets id, timestamp and hash. admin_action: append-only.
-- trail_origin: the trail has only the hashes of these; sealed with the subject's key, as its cells.
-- hash_key: the keys that made the stored hashes, the oldest first.
-- opt_in: an agreement that waits for its confirmation by the mailed link; sealed likewise.
-- restriction: while it lasts nothing is sent or erased; `kept` is an export of all services, sealed.

-- name: state_of
-- The state of a subject's consent to a purpose. A withdrawal of all (`*`) holds for every purpose
-- that was not granted after it, recorded or not. `asks_less`: a pause or a cap is to be looked at.
SELECT CASE WHEN whole.withdrawn_at >= coalesce(own.changed_at, '-infinity') THEN 'withdrawn'
        ELSE own.state END AS state,
    EXISTS (SELECT FROM preference WHERE subject_id = :subject AND preference.purpose = :purpose)
        AS asks_less
FROM (VALUES (1)) AS one
LEFT JOIN consent_state AS own ON own.subject_id = :subject AND own.purpose = :purpose
LEFT JOIN consent_state AS whole ON whole.subject_id = :subject AND whole.purpose = '*';

-- name: within_preference
-- Count this mail under the person's cap, unless they pause or had another within its time. The
-- row's lock makes two messages that ask at once see each other.
UPDATE preference SET last_message = :message, last_at = clock_timestamp()
WHERE subject_id = :subject AND purpose = :purpose
    AND coalesce(paused_until <= clock_timestamp(), TRUE)
    AND (days IS NULL OR last_at IS NULL OR last_message = :message
        OR last_at + make_interval(days => days) <= clock_timestamp());

-- name: deferred
-- Seconds until the next mail to somebody who pauses or has a cap.
SELECT CAST(ceil(greatest(extract(epoch FROM greatest(paused_until,
    last_at + make_interval(days => days)) - clock_timestamp()), 1)) AS integer)
FROM preference WHERE subject_id = :subject AND purpose = :purpose;

-- name: prefer
-- A pause of so many days from now, or as before, and at most one mail in so many days; NULL: none.
INSERT INTO preference AS mine (subject_id, purpose, paused_until, days)
VALUES (:subject, :purpose, clock_timestamp() + make_interval(days => CAST(:pause AS integer)),
    CAST(:days AS integer))
ON CONFLICT (subject_id, purpose) DO UPDATE SET days = excluded.days,
    paused_until = CASE WHEN :keep THEN mine.paused_until ELSE excluded.paused_until END;

-- name: states_of_all
-- The states of many addresses.
SELECT lookup_hash, purpose, state
FROM consent_state JOIN data_subject ON data_subject.id = subject_id
WHERE lookup_hash = ANY(CAST(:hashes AS bytea[])) AND purpose <> '*';

-- name: dated_states
SELECT purpose, state, changed_at FROM consent_state WHERE subject_id = :subject;

-- name: grant
-- Record an agreement to a purpose; the version changes only if the state does. That of `*` always
-- does: a withdrawal of all that is not answered yet has been superseded.
WITH newer AS (
    UPDATE consent_state SET version = version + 1 WHERE subject_id = :subject AND purpose = '*'
)
INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at)
VALUES (:subject, :purpose, 'granted', clock_timestamp())
ON CONFLICT (subject_id, purpose) DO UPDATE SET
    state = excluded.state,
    version = mine.version + 1,
    changed_at = excluded.changed_at
WHERE mine.state <> excluded.state;

-- name: withdraw
-- Withdraw purposes; the version changes only when the state does, `withdrawn_at` always. `*` is a
-- row of its own, and withdraws every purpose that was granted by then. `consent.pairs` says that
-- `marketing` alone is meant: the release before knows no other purpose (migration 0004).
WITH told AS MATERIALIZED (
    SELECT set_config('consent.pairs', 'on', TRUE), clock_timestamp() AS now
)
INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at, withdrawn_at)
SELECT :subject, purpose, 'withdrawn', now, coalesce(:at, now)
FROM told, LATERAL (
    SELECT unnest(CAST(:purposes AS text[])) AS purpose
    UNION SELECT purpose FROM consent_state
    WHERE subject_id = :subject AND '*' = ANY(CAST(:purposes AS text[])) AND purpose <> '*'
        AND changed_at <= coalesce(:at, now)
) AS withdrawn
ON CONFLICT (subject_id, purpose) DO UPDATE SET
    state = excluded.state,
    version = mine.version + CAST(mine.state <> excluded.state AS integer),
    changed_at = CASE WHEN mine.state = excluded.state THEN mine.changed_at
        ELSE excluded.changed_at END,
    withdrawn_at = greatest(mine.withdrawn_at, excluded.withdrawn_at);

-- name: agreed_after
-- Whether that withdrawal is recorded here, or an agreement followed it.
SELECT EXISTS (SELECT FROM consent_state WHERE subject_id = :subject AND purpose = :purpose
    AND (withdrawn_at >= :at OR (state = 'granted' AND changed_at > :at)));

-- fragment: purposes
CAST(:purposes AS text[]);

-- name: consent
-- Versions and permits of these purposes, with `*` of all; `age`: seconds since the withdrawal, or the last of these permits.
SELECT purpose, version,
    CAST(extract(epoch FROM clock_timestamp() - greatest(changed_at, last)) AS float) AS age,
    unreturned
FROM consent_state, LATERAL (SELECT count(*) AS unreturned, max(granted_at) AS last FROM permit
     WHERE permit.subject_id = consent_state.subject_id AND returned_at IS NULL
        -- NULL: by the release before. A mail that asks to confirm may be about any purpose.
        AND (coalesce(permit.purpose, 'opt-in') = 'opt-in' OR permit.purpose = ANY({purposes})
            OR '*' = ANY({purposes}))) AS permits
WHERE subject_id = :subject AND (purpose = ANY({purposes}) OR '*' = ANY({purposes}));

-- name: open_permit
-- Record a permit for this attempt unless there is one.
INSERT INTO permit (message, attempt, subject_id, granted_at, purpose)
VALUES (:message, :attempt, :subject, clock_timestamp(), :purpose)
ON CONFLICT (message, attempt) DO NOTHING;

-- name: permit
-- The permit of an attempt. One attempt has one address: another subject's permit does not count.
SELECT CAST(extract(epoch FROM clock_timestamp() - granted_at) AS float) AS age,
    returned_at IS NOT NULL OR subject_id IS DISTINCT FROM :subject AS closed
FROM permit WHERE message = :message AND attempt = :attempt;

-- name: return_permit
-- Close a permit permanently; a return that overtakes its request leaves a tombstone.
INSERT INTO permit (message, attempt, returned_at)
VALUES (:message, :attempt, clock_timestamp())
ON CONFLICT (message, attempt) DO UPDATE
    SET returned_at = coalesce(permit.returned_at, excluded.returned_at);

-- name: suppress
-- Suppress an address, and void its links that wait for a confirmation.
WITH waiting AS (
    DELETE FROM opt_in
    WHERE subject_id = :subject AND (purpose = ANY({purposes}) OR '*' = ANY({purposes}))
)
INSERT INTO suppression AS mine (suppression_hash, purpose, keep_until, never_ask)
SELECT :hash, purpose, now() + make_interval(days => :days), :never_ask
FROM unnest(CAST(:purposes AS text[])) AS purpose
ON CONFLICT (suppression_hash, purpose) DO UPDATE SET
    keep_until = excluded.keep_until,
    never_ask = mine.never_ask OR excluded.never_ask;

-- name: restrictions
-- What prevents a new agreement: the suppression, and the withdrawal, which may outlive it; of this
-- purpose, or of all (`*`), which ends where this one was granted since.
SELECT coalesce(bool_or(never_ask IS NOT NULL AND (purpose = :purpose OR NOT granted)), FALSE)
        OR NOT granted AND (state IS NOT NULL OR all_at IS NOT NULL) AS suppressed,
    coalesce(bool_or(never_ask), FALSE) AS never_ask,
    greatest(withdrawn_at, all_at) AS withdrawn_at, granted
FROM (
    SELECT own.state, own.withdrawn_at, whole.withdrawn_at AS all_at,
        coalesce(own.state = 'granted', FALSE) AS granted
    FROM (VALUES (1)) AS one
    LEFT JOIN consent_state AS own ON own.subject_id = :subject AND own.purpose = :purpose
    LEFT JOIN consent_state AS whole ON whole.subject_id = :subject AND whole.purpose = '*'
) AS stands
LEFT JOIN suppression ON suppression_hash = :hash AND purpose IN (:purpose, '*')
    AND keep_until > now()
GROUP BY state, withdrawn_at, all_at, granted;

-- name: lift_suppression
-- Of this purpose; the others stay suppressed, but may be asked for again.
WITH asked AS (
    UPDATE suppression SET never_ask = FALSE
    WHERE suppression_hash = :hash AND purpose = '*' AND never_ask
)
DELETE FROM suppression WHERE suppression_hash = :hash AND purpose = :purpose;

-- name: find
-- A subject by the hash of an address or number; locked as protocol B needs it.
SELECT id, master_key_id, wrapped_key FROM data_subject WHERE lookup_hash = :hash;

-- name: find_for_share
{find} FOR SHARE;

-- name: find_for_update
{find} FOR UPDATE;

-- name: find_by_id
SELECT id, master_key_id, wrapped_key FROM data_subject
WHERE id = :subject AND erased_at IS NULL;

-- name: insert_subject
INSERT INTO data_subject (id, lookup_hash, master_key_id, wrapped_key)
VALUES (:id, :hash, :master, :key) ON CONFLICT DO NOTHING;

-- name: lock_subject
SELECT id FROM data_subject WHERE id = :subject FOR UPDATE;

-- name: held_states
-- What an export shows, by kind; nothing under a subject or a hash that is NULL.
SELECT purpose, state, version, changed_at FROM consent_state WHERE subject_id = :subject;

-- name: held_restrictions
SELECT since FROM restriction WHERE subject_id = :subject;

-- name: held_permits
SELECT message, attempt, purpose, granted_at, returned_at FROM permit WHERE subject_id = :subject;

-- name: held_preferences
SELECT purpose, paused_until, days FROM preference WHERE subject_id = :subject;

-- name: held_undeliverable
SELECT since, takes_mail FROM undeliverable WHERE subject_id = :subject;

-- name: held_suppressions
SELECT purpose, created_at, keep_until FROM suppression WHERE suppression_hash = :hash;

-- name: held_link_mails
SELECT kind, first_at, last_at, count FROM link_mail WHERE suppression_hash = :hash;

-- name: held_erasures
SELECT status, requested_at, confirmed_at, finished_at FROM erasure WHERE suppression_hash = :hash;

-- name: wrapped_before
-- Subjects whose key is wrapped with an earlier master key, in the order of their hashes.
SELECT id, lookup_hash, master_key_id, wrapped_key FROM data_subject
WHERE lookup_hash > :hash AND master_key_id <> :current
ORDER BY lookup_hash LIMIT :batch FOR UPDATE;

-- name: rewrap
UPDATE data_subject SET master_key_id = :current, wrapped_key = new.wrapped
FROM unnest(CAST(:ids AS uuid[]), CAST(:wrapped AS bytea[])) AS new (id, wrapped)
WHERE data_subject.id = new.id;

-- name: known
-- Which of these ids have a row, and whether the subject is not erased.
SELECT id, erased_at IS NULL AS alive FROM data_subject WHERE id = ANY(CAST(:ids AS uuid[]));

-- name: forget
-- Delete hash and key, without which the remaining rows identify no one.
WITH waiting AS (DELETE FROM opt_in WHERE subject_id = :subject),
    returned AS (DELETE FROM undeliverable WHERE subject_id = :subject),
    preferred AS (DELETE FROM preference WHERE subject_id = :subject)
UPDATE data_subject
SET lookup_hash = NULL, master_key_id = NULL, wrapped_key = NULL, erased_at = now()
WHERE id = :subject;

-- name: restrict
INSERT INTO restriction (subject_id) VALUES (:subject) ON CONFLICT DO NOTHING;

-- name: restricted
SELECT since, kept FROM restriction WHERE subject_id = :subject;

-- name: keep
-- Keep the export made when the restriction began; an earlier one stays.
UPDATE restriction SET kept = :kept WHERE subject_id = :subject AND kept IS NULL;

-- name: lift
DELETE FROM restriction WHERE subject_id = :subject;

-- name: undeliverable
SELECT EXISTS (SELECT FROM undeliverable WHERE subject_id = :subject AND NOT takes_mail);

-- name: report_address
-- No permit is given while its mail comes back. The newest report counts, in whatever order they come.
INSERT INTO undeliverable (subject_id, since, takes_mail) VALUES (:subject, :at, :takes_mail)
ON CONFLICT (subject_id) DO UPDATE SET since = excluded.since, takes_mail = excluded.takes_mail
WHERE undeliverable.since < excluded.since;

-- name: request_erasure
-- A request that was never confirmed lapses after a week, the longest validity of a link: the
-- month in which it must be done then starts with the newer request.
INSERT INTO erasure AS mine (id, subject_id, suppression_hash, status)
VALUES (:id, :subject, :hash, 'awaiting_confirmation')
ON CONFLICT (subject_id) DO UPDATE SET requested_at = CASE
    WHEN mine.requested_at < now() - interval '7 days' THEN now() ELSE mine.requested_at END
RETURNING id;

-- name: awaits_confirmation
-- Whether this request belongs to this subject and is still open.
SELECT EXISTS (SELECT FROM erasure WHERE id = :id AND subject_id = :subject);

-- name: find_erasure
-- An address's erasure: the one in progress, else the one requested last. `due_at`: when it must be
-- done (Art. 12(3) GDPR), a month after the request.
SELECT id, status, requested_at, confirmed_at, finished_at,
    requested_at + interval '1 month' AS due_at,
    ARRAY(SELECT service FROM erasure_receipt WHERE erasure_id = erasure.id) AS receipts
FROM erasure WHERE suppression_hash = :hash
ORDER BY status = 'in_progress' DESC, requested_at DESC LIMIT 1;

-- name: confirm_erasure
-- The erasure of a subject; it no longer leads to the subject.
UPDATE erasure SET status = 'in_progress', confirmed_at = now(), subject_id = NULL
WHERE subject_id = :subject RETURNING id;

-- name: record_missed
-- Record an erasure that the restored database has lost.
WITH subject AS (
    INSERT INTO data_subject (id, erased_at) VALUES (:subject, :at) ON CONFLICT DO NOTHING
)
INSERT INTO erasure (id, suppression_hash, status, requested_at, confirmed_at, finished_at)
VALUES (:id, :hash, CAST(:status AS text), :at, :at, CASE :status WHEN 'done' THEN now() END)
ON CONFLICT DO NOTHING;

-- name: lock_erasure
-- Without the lock, two concurrent receipts would not see each other.
SELECT id FROM erasure WHERE id = :id FOR UPDATE;

-- name: receive
-- Record a service's receipt; out of order it is ignored (protocol C).
INSERT INTO erasure_receipt (erasure_id, service)
SELECT :id, CAST(:service AS text) WHERE CAST(:earlier AS text[]) <@ ARRAY(
    SELECT service FROM erasure_receipt WHERE erasure_id = :id)
ON CONFLICT DO NOTHING;

-- name: finish
-- An erasure is done once every service has sent its receipt.
UPDATE erasure
SET status = 'done', finished_at = now(), master_key_id = NULL, sealed_subject = NULL
WHERE id = :id AND status = 'in_progress' AND CAST(:holders AS text[]) <@ ARRAY(
    SELECT service FROM erasure_receipt WHERE erasure_id = :id);

-- name: erased_since
-- Which of these addresses were erased since that time; without a time, ever.
SELECT suppression_hash FROM erasure WHERE suppression_hash = ANY(CAST(:hashes AS bytea[]))
    AND confirmed_at >= coalesce(:at, CAST('-infinity' AS timestamptz));

-- name: seal_order
-- Store the sealed subject, so that the order can be repeated.
UPDATE erasure SET master_key_id = :master, sealed_subject = :key,
    ordered_at = CASE WHEN :ordered THEN now() ELSE ordered_at END
WHERE id = :id;

-- fragment: order
SELECT id, master_key_id, sealed_subject,
    ARRAY(SELECT service FROM erasure_receipt WHERE erasure_id = erasure.id) AS receipts
FROM erasure;

-- name: lock_order
-- The order of an erasure in progress.
{order} WHERE id = :id AND sealed_subject IS NOT NULL FOR UPDATE OF erasure;

-- name: sealed_before
-- Orders that are sealed with another master key than this.
{order} WHERE status = 'in_progress' AND master_key_id <> :current FOR UPDATE OF erasure;

-- name: take_overdue
-- Orders older than this that still lack a receipt; they count as sent now.
UPDATE erasure SET ordered_at = now()
WHERE id IN (
    SELECT id FROM erasure WHERE status = 'in_progress' AND sealed_subject IS NOT NULL
        AND ordered_at <= now() - make_interval(secs => :seconds)
    ORDER BY requested_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
RETURNING id, master_key_id, sealed_subject,
    ARRAY(SELECT service FROM erasure_receipt WHERE erasure_id = erasure.id) AS receipts;

-- name: awaiting
-- Unconfirmed requests, the oldest first.
SELECT subject_id AS subject, requested_at, requested_at + interval '1 month' AS due_at
FROM erasure WHERE status = 'awaiting_confirmation' ORDER BY requested_at LIMIT :batch;

-- name: dismiss
DELETE FROM erasure WHERE subject_id = :subject;

-- name: open_erasures
-- How many are in progress, the days until the first is due, and how many nobody has confirmed.
SELECT count(*) FILTER (WHERE status = 'in_progress') AS in_progress,
    CAST(extract(epoch FROM min(requested_at + interval '1 month')
        FILTER (WHERE status = 'in_progress') - now()) / 86400 AS float) AS days_left,
    count(*) FILTER (WHERE status = 'awaiting_confirmation') AS awaiting
FROM erasure WHERE status IN ('in_progress', 'awaiting_confirmation');

-- name: add_hash_key
INSERT INTO hash_key (position, fingerprint) VALUES (:position, :fingerprint)
ON CONFLICT DO NOTHING;

-- name: hash_keys
SELECT fingerprint FROM hash_key ORDER BY position;

-- name: lock_hash_keys
-- A process that starts now waits for the first key; otherwise it would use the old ones.
LOCK TABLE hash_key IN EXCLUSIVE MODE;

-- name: other_connections
-- Of other processes of this service.
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid();

-- name: may_mail
-- Note a link that is mailed now, unless the address has reached its limit of this kind: one an hour
-- and some a day, so that requests of one kind cannot block the other kind. The row decides, so any
-- number of requests at once, in any number of processes, make one mail.
INSERT INTO link_mail AS mine (suppression_hash, kind, first_at, last_at, count)
SELECT CAST(:hash AS bytea), CAST(:kind AS text), now(), now(), 1 WHERE CAST(:may AS boolean)
ON CONFLICT (suppression_hash, kind) DO UPDATE SET
    count = CASE WHEN mine.first_at > now() - interval '1 day' THEN mine.count + 1 ELSE 1 END,
    first_at = CASE WHEN mine.first_at > now() - interval '1 day' THEN mine.first_at
        ELSE now() END,
    last_at = now()
WHERE mine.last_at <= now() - interval '1 hour'
    AND (mine.count < :a_day OR mine.first_at <= now() - interval '1 day')
RETURNING 1 AS noted;

-- name: await_opt_in
-- Keep an agreement until it is confirmed, if its link may be mailed now.
WITH mailed AS ({may_mail})
INSERT INTO opt_in (id, subject_id, purpose, agreement)
SELECT :id, :subject, :purpose, :agreement FROM mailed;

-- name: waiting_opt_in
-- The agreement that a link confirms.
SELECT agreement FROM opt_in WHERE id = :id AND subject_id = :subject AND purpose = :purpose;

-- name: is_waiting
SELECT EXISTS (SELECT FROM opt_in WHERE id = :id AND subject_id = :subject);

-- name: use_opt_in
DELETE FROM opt_in WHERE id = :id;

-- name: waiting_agreements
-- Those that wait for confirmation, the oldest first, sealed with the subject's key.
SELECT purpose, asked_at, agreement FROM opt_in WHERE subject_id = :subject ORDER BY asked_at;

-- name: has_position
-- Whether the trail has a position, and whether it was once noted as missing.
SELECT :rows = 0 OR EXISTS (
        SELECT FROM consent_audit_log WHERE id = :rows AND hash = :hash) AS is_there,
    EXISTS (SELECT FROM restore
        WHERE rows = :rows AND hash = :hash AND replayed_at IS NULL) AS noticed;

-- name: position_is_back
DELETE FROM restore WHERE rows = :rows AND hash = :hash AND replayed_at IS NULL;

-- name: is_current
-- Whether the trail has this position and no other host misses one of its own.
SELECT (:rows = 0 OR EXISTS (SELECT FROM consent_audit_log WHERE id = :rows AND hash = :hash))
    AND NOT EXISTS (SELECT FROM restore WHERE replayed_at IS NULL);

-- name: record_missing
-- Record that a position is missing; return whether all was replayed since.
INSERT INTO restore AS mine (rows, hash) VALUES (:rows, :hash)
ON CONFLICT (rows, hash) DO UPDATE SET rows = excluded.rows
RETURNING replayed_at IS NOT NULL AS replayed;

-- name: record_replayed
-- Trust the database again, once each host has applied its file.
UPDATE restore SET replayed_at = now() WHERE replayed_at IS NULL;

-- name: withdrawn_after
-- Withdrawals and erasures, in the order of the trail. An erasure is not linked to the subject whom
-- it erased, but both have the time of the transaction. If two share it, each is recorded with both
-- hashes: both were erased.
SELECT log.id, encode(log.hash, 'hex') AS hash, log.action, log.subject_id, log.email,
    log.evidence, master_key_id, wrapped_key, erased_at,
    encode(lookup_hash, 'hex') AS lookup_hash, erased.id AS erasure_id,
    encode(erased.suppression_hash, 'hex') AS suppression_hash,
    (SELECT jsonb_object_agg(purpose, withdrawn_at) FROM consent_state
     WHERE consent_state.subject_id = log.subject_id AND withdrawn_at IS NOT NULL) AS withdrawn
FROM consent_audit_log AS log JOIN data_subject ON data_subject.id = log.subject_id
LEFT JOIN (SELECT id, suppression_hash, confirmed_at FROM erasure) AS erased
    ON action = 'erased' AND confirmed_at = erased_at
WHERE log.id > :after AND log.id <= :until
    AND action IN ('unsubscribe', 'revoke-consent', 'erasure-requested', 'erased')
ORDER BY log.id LIMIT :batch;

-- name: withdrawals_without
-- Which of these withdrawals the database lacks. By number, and not by their columns: the driver's
-- times may differ from the file's.
SELECT number FROM unnest(CAST(:ids AS uuid[]), CAST(:purposes AS text[]),
    CAST(CAST(:times AS text[]) AS timestamptz[])) WITH ORDINALITY
    AS given (subject_id, purpose, at, number)
WHERE NOT EXISTS (SELECT FROM consent_state WHERE withdrawn_at >= given.at
    AND consent_state.subject_id = given.subject_id AND consent_state.purpose = given.purpose)
ORDER BY number;

-- name: append
-- A row of the trail, and the originals of its hashes.
WITH origin AS (INSERT INTO trail_origin (sealed) SELECT unnest(CAST(:origins AS bytea[])))
INSERT INTO consent_audit_log
    (subject_id, action, email, ip_address, user_agent, reason, session_id, evidence)
VALUES (:subject, :action, :email, :ip_address, :user_agent, :reason, :session_id, :evidence);

-- name: rows_of
-- A subject's rows in the order of the chain, with the originals of their hashes: of origins past
-- their retention, NULL.
SELECT id, action, "timestamp", email, address.sealed AS ip_address, browser.sealed AS user_agent,
    reason, session_id, evidence
FROM consent_audit_log
LEFT JOIN trail_origin AS address ON address.hash = ip_address
LEFT JOIN trail_origin AS browser ON browser.hash = user_agent
WHERE subject_id = :subject AND id > :after ORDER BY id LIMIT :batch;

-- name: last_row
SELECT action, "timestamp", email FROM consent_audit_log
WHERE subject_id = :subject ORDER BY "timestamp" DESC, id DESC LIMIT 1;

-- name: last_opt_ins
SELECT evidence FROM consent_audit_log WHERE subject_id = :subject AND action = 'opt-in'
ORDER BY "timestamp" DESC, id DESC LIMIT :batch;

-- name: people_after
SELECT id FROM data_subject WHERE id > :after AND erased_at IS NULL ORDER BY id LIMIT :batch;

-- name: consents_until
-- What a subject agreed to and withdrew until then, in the order of the chain.
SELECT id, action, "timestamp", email, evidence, encode(hash, 'hex') AS hash
FROM consent_audit_log WHERE subject_id = :subject AND "timestamp" <= :at
    AND action IN ('opt-in', 'unsubscribe', 'revoke-consent', 'erasure-requested')
ORDER BY id;

-- name: head
SELECT id, hash FROM consent_audit_log ORDER BY id DESC LIMIT 1;

-- name: append_only
-- What this role may do to the trail beside appending, and the triggers that are always enabled.
SELECT
    ARRAY(SELECT what FROM unnest(ARRAY['UPDATE', 'REFERENCES']) what
        WHERE has_any_column_privilege('consent_audit_log', what))
    || ARRAY(SELECT what FROM unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) what
        WHERE has_table_privilege('consent_audit_log', what)) AS may,
    ARRAY(SELECT CAST(tgname AS text) FROM pg_trigger
        WHERE tgrelid = CAST('consent_audit_log' AS regclass) AND tgenabled = 'A') AS enabled;

-- name: may_be_undone
-- Whether the next primary may lack rows that this server shows. A primary that is demoted ends the
-- commits that still wait for a standby, and shows their rows. It then accepts no writes.
SELECT CAST(current_setting('transaction_read_only') AS boolean);

-- name: positions
-- The stored hashes of these rows; some may be missing.
SELECT id, hash FROM consent_audit_log WHERE id = ANY(CAST(:numbers AS bigint[])) ORDER BY id;

-- name: stored
-- What the trigger hashes: the same columns in the same order. As text, because the drivers' and
-- SQLAlchemy's conversions of bytea to bytes cost more than the hashing. By number, because without
-- statistics LIMIT would sort all remaining rows.
SELECT id, encode(hash, 'hex') AS hash, encode(record_send(ROW(
    id, subject_id, action, "timestamp",
    email, ip_address, user_agent, reason, session_id, evidence
)), 'hex') AS stored
FROM consent_audit_log WHERE id > :after AND id <= :until ORDER BY id;

-- name: purge_permits
-- A request lives seconds in the broker and an alert three days: no tombstone is missed.
DELETE FROM permit WHERE (message, attempt) IN (SELECT message, attempt FROM permit
    WHERE coalesce(granted_at, returned_at) < now() - interval '30 days'
    LIMIT :batch FOR UPDATE SKIP LOCKED);

-- name: purge_suppressions
DELETE FROM suppression WHERE (suppression_hash, purpose) IN (
    SELECT suppression_hash, purpose FROM suppression WHERE keep_until < now()
    LIMIT :batch FOR UPDATE SKIP LOCKED);

-- name: purge_erasures
-- An erasure's hash of the address has no use beyond the suppression's. One that was never
-- confirmed has a link that expired long ago.
DELETE FROM erasure WHERE id IN (SELECT id FROM erasure
    WHERE finished_at < now() - make_interval(days => :suppressions)
        OR (status = 'awaiting_confirmation'
            AND requested_at < now() - make_interval(days => :unconfirmed_erasures))
    LIMIT :batch FOR UPDATE SKIP LOCKED);

-- name: purge_opt_ins
-- Longer than the longest validity of a link.
DELETE FROM opt_in WHERE id IN (SELECT id FROM opt_in
    WHERE asked_at < now() - interval '31 days' LIMIT :batch FOR UPDATE SKIP LOCKED);

-- name: purge_link_mails
DELETE FROM link_mail WHERE (suppression_hash, kind) IN (
    SELECT suppression_hash, kind FROM link_mail WHERE last_at < now() - interval '1 day'
    LIMIT :batch FOR UPDATE SKIP LOCKED);

-- name: purge_origins
-- The trail keeps their hashes and still verifies. The role may not update, so it cannot lock.
DELETE FROM trail_origin WHERE hash IN (SELECT hash FROM trail_origin
    WHERE written_at < now() - make_interval(days => :origins) LIMIT :batch);

-- fragment: expired
-- Proof is no longer needed about these subjects. A state with a second version was granted once;
-- otherwise it is only a withdrawal, or nothing.
erased_at IS NULL AND created_at < now() - make_interval(days => least(
    CAST(:proofs AS integer), CAST(:withdrawals AS integer)))
AND NOT EXISTS (SELECT FROM consent_state
    WHERE subject_id = data_subject.id AND state = 'granted')
AND NOT EXISTS (SELECT FROM permit WHERE subject_id = data_subject.id)
AND NOT EXISTS (SELECT FROM opt_in WHERE subject_id = data_subject.id)
AND NOT EXISTS (SELECT FROM erasure WHERE subject_id = data_subject.id)
AND NOT EXISTS (SELECT FROM restriction WHERE subject_id = data_subject.id)
AND coalesce((SELECT max("timestamp") FROM consent_audit_log
        WHERE subject_id = data_subject.id), created_at)
    < now() - make_interval(days => CASE WHEN EXISTS (SELECT FROM consent_state
        WHERE subject_id = data_subject.id AND version > 1) THEN CAST(:proofs AS integer)
        ELSE CAST(:withdrawals AS integer) END);

-- name: lock_expired
SELECT id FROM data_subject WHERE {expired} LIMIT :batch FOR UPDATE SKIP LOCKED;

-- name: forget_expired
-- Destroy their keys; the trail still verifies. The condition is tested again under the lock, so
-- that a concurrent agreement is seen.
UPDATE data_subject
SET lookup_hash = NULL, master_key_id = NULL, wrapped_key = NULL, erased_at = now()
WHERE id = ANY(CAST(:ids AS uuid[])) AND {expired};

-- name: purge_calls
-- The record of calls with the admin key before decision 53; the table enforces at least a year.
SELECT admin_action_purge(:calls);

-- name: idle
-- One round trip, so that timing does not reveal which answer it is.
SELECT 1;
