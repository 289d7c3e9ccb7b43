-- staff_action, key_version: append-only. A version that is not here comes from a database that this
-- one was restored over. staff_action.count: of rows, where one act changed, or showed, several.
-- api_key_digest: `added_in` is the version that brought it; `until`: when it ends before its key.
-- key_restore: a version that a gateway has and that key_version lacks, with the digests in force
-- there (`held`), and what it was told about people (people.standing).
-- staff: `proof_at` is when what they log in with last changed; `factor`: the sealed secret of an
-- app; `factor_step`: of the last code that was used (RFC 6238); `recovery`: digests of codes.
-- staff_credential: a password has a `hash`, an OIDC account `issuer` and `subject`; one of them.
-- login_failure: by the hash of what was typed (people.tries): also for accounts that do not exist.
-- bulk_action: `done` never says too much: an answer that was lost with its process is not counted.
-- sample: what each target had in each minute; `delivered` and `failed` count from the beginning.

-- fragment: held
-- Whether this database was restored from a backup, and nobody has accepted that yet.
EXISTS (SELECT FROM key_restore WHERE accepted_at IS NULL)

-- name: person
SELECT staff.id, staff.email, staff.name, roles, language, disabled_at, proof_at, factor, recovery
FROM staff;

-- name: find_person
{person} WHERE staff.id = :id OR staff.email = :email;

-- name: by_identity
-- Who logs in with this account of the identity provider.
{person} JOIN staff_credential ON staff_id = staff.id
WHERE issuer = :issuer AND subject = :subject FOR SHARE OF staff_credential;

-- fragment: opens
-- Whether a credential counts today.
issuer = :issuer OR (kind = 'password' AND :passwords)

-- name: everybody
-- With `joined`: whether they have a credential that counts today.
SELECT staff.id, email, name, roles, language, disabled_at, factor, EXISTS (
    SELECT FROM staff_credential WHERE staff_id = staff.id AND ({opens})) AS joined
FROM staff ORDER BY name;

-- name: admins
{person} WHERE disabled_at IS NULL AND 'admin' = ANY(roles);

-- name: other_admins
-- Whether somebody else can log in as admin.
SELECT EXISTS (SELECT FROM staff JOIN staff_credential ON staff_id = staff.id
    WHERE staff.id <> :id AND disabled_at IS NULL AND 'admin' = ANY(roles) AND ({opens}));

-- name: add_person
INSERT INTO staff (id, email, name, roles, language)
VALUES (:id, :email, :name, :roles, :language);

-- name: take_back
-- Enable a person who was disabled.
UPDATE staff SET name = :name, roles = :roles, language = :language, disabled_at = NULL
WHERE id = :id;

-- name: set_roles
UPDATE staff SET roles = :roles WHERE id = :id;

-- name: set_language
UPDATE staff SET language = :language WHERE id = :id;

-- name: set_factor
UPDATE staff SET factor = :factor, factor_step = :step, recovery = :recovery, proof_at = now()
WHERE id = :id;

-- name: seal_factor
UPDATE staff SET factor = :factor WHERE id = :id;

-- name: block
UPDATE staff SET disabled_at = now() WHERE id = :id;

-- name: add_invitation
-- A link; those before it end.
WITH earlier AS (DELETE FROM invitation WHERE staff_id = :id)
INSERT INTO invitation (token_sha256, staff_id, expires_at) VALUES (:token, :id, :at);

-- fragment: usable
used_at IS NULL AND expires_at > now() AND disabled_at IS NULL

-- name: invited
-- The person of an unused link.
{person} JOIN invitation ON staff_id = staff.id WHERE token_sha256 = :token AND {usable};

-- name: use_invitation
UPDATE invitation SET used_at = now() WHERE token_sha256 = :token AND used_at IS NULL;

-- name: use_invitation_of
-- Use the unused link of this address.
UPDATE invitation SET used_at = now() FROM staff
WHERE staff_id = staff.id AND staff.email = :email AND {usable}
RETURNING staff.id, staff.email, staff.name, roles, language, disabled_at, proof_at, factor, recovery;

-- name: end_invitations
DELETE FROM invitation;

-- name: password_hash
SELECT hash FROM staff_credential WHERE staff_id = :id AND kind = 'password';

-- name: end_credentials
DELETE FROM staff_credential WHERE staff_id = :id;

-- name: add_credential
WITH proved AS (UPDATE staff SET proof_at = now() WHERE id = :id)
INSERT INTO staff_credential (staff_id, kind, hash, issuer, subject)
VALUES (:id, :kind, :hash, :issuer, :subject);

-- name: still_opens
-- Until the commit no invitation replaces this password.
SELECT staff_id FROM staff_credential WHERE staff_id = :id AND hash = :hashed FOR UPDATE;

-- name: rehash
UPDATE staff_credential SET hash = :hashed WHERE staff_id = :id AND kind = 'password';

-- name: use_code
-- Use the code of this step, or this recovery code: each once, as the row's lock decides. Returns how
-- many recovery codes are left; no row: the code does not open.
UPDATE staff SET factor_step = greatest(factor_step, CAST(:step AS bigint)),
    recovery = array_remove(recovery, :code)
WHERE id = :id AND (coalesce(factor_step < CAST(:step AS bigint), FALSE) OR :code = ANY(recovery))
RETURNING cardinality(recovery);

-- name: count_try
INSERT INTO login_failure (email_sha256, failures) VALUES (:tried, 1)
ON CONFLICT (email_sha256) DO UPDATE SET failures = login_failure.failures + 1, last_at = now()
RETURNING failures;

-- name: forget_tries
DELETE FROM login_failure WHERE email_sha256 = :tried;

-- name: told
-- A week's notices to every admin, and a month's notices about this person.
SELECT at, actor_kind, actor_id, actor_name, action, reason, coalesce(
    (SELECT name FROM staff WHERE CAST(staff.id AS text) = object_ref),
    (SELECT name FROM api_key WHERE api_key.id = object_ref)) AS whom
FROM staff_action WHERE action = ANY(CAST(:acts AS text[])) AND (
    (:admin AND at > now() - interval '7 days')
    OR (object_ref = CAST(CAST(:id AS uuid) AS text) AND at > now() - interval '30 days'))
ORDER BY at DESC LIMIT 20;

-- name: erase_people
-- See migration 0009.
SELECT staff_erase();

-- name: purge_tries
DELETE FROM login_failure WHERE last_at < now() - interval '1 hour';

-- name: purge_invitations
DELETE FROM invitation WHERE expires_at < now() - interval '1 day';

-- fragment: open
-- A session that has not ended.
ended_at IS NULL AND seen_at > now() - make_interval(secs => :idle)
AND staff_session.created_at > now() - make_interval(secs => :most)

-- name: begin_session
INSERT INTO staff_session (token_sha256, staff_id, browser, stepped_up_at)
VALUES (:token, :id, :browser, coalesce(:at, now()));

-- name: visitor
-- Who has a session.
SELECT staff.id, email, name, roles, language, token_sha256, stepped_up_at,
    factor IS NOT NULL AS factor, NOT EXISTS (SELECT FROM staff_credential
        WHERE staff_credential.staff_id = staff.id AND kind = 'oidc') AS by_password
FROM staff JOIN staff_session ON staff_session.staff_id = staff.id
WHERE token_sha256 = :token AND {open} AND disabled_at IS NULL AND NOT {held};

-- name: seen
-- A write a minute, not one for each request.
UPDATE staff_session SET seen_at = now()
WHERE token_sha256 = :token AND seen_at < now() - interval '1 minute';

-- name: step_up
UPDATE staff_session SET token_sha256 = :token, stepped_up_at = coalesce(:at, now())
WHERE token_sha256 = :session;

-- name: sessions_of
SELECT token_sha256, browser, created_at, seen_at FROM staff_session
WHERE staff_id = :id AND {open} ORDER BY seen_at DESC;

-- name: end_sessions
-- One session of a person, all of them, or everybody's.
UPDATE staff_session SET ended_at = now()
WHERE ended_at IS NULL AND staff_id = coalesce(:id, staff_id)
    AND token_sha256 = coalesce(:session, token_sha256);

-- name: purge_sessions
DELETE FROM staff_session WHERE seen_at < now() - make_interval(days => :days);

-- name: add_act
-- An act of now, or of another service, unless it is already here.
INSERT INTO staff_action (id, at, actor_kind, actor_id, actor_name, roles, client_address, action,
    object_kind, object_ref, reason, request_id, outcome, count)
VALUES (:id, coalesce(:at, now()), :actor_kind, :actor_id, :actor_name, :roles, :client_address,
    :action, :object_kind, :object_ref, :reason, :request_id, :outcome, :count)
ON CONFLICT DO NOTHING;

-- name: looked_at
-- What a person has looked at since their session began.
SELECT object_ref FROM staff_action WHERE actor_kind = 'staff' AND actor_id = :actor
    AND action = :action
    AND at >= (SELECT created_at FROM staff_session WHERE token_sha256 = :session);

-- name: acts
-- A page of the record, the latest first.
SELECT id, at, actor_kind, actor_id, actor_name, roles, action, object_kind, object_ref, reason,
    request_id, outcome, count, client_address
FROM staff_action
WHERE (CAST(:at AS timestamptz) IS NULL OR (at, id) < (:at, :id))
    AND (:actor = '' OR actor_id = :actor) AND (:action = '' OR action = :action)
    AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
ORDER BY at DESC, id DESC LIMIT :most;

-- name: acts_about
-- What was done to any of these, the earliest first, without names or other refs.
SELECT at, actor_kind, actor_id, roles, action, object_kind, reason FROM staff_action
WHERE string_to_array(object_ref, ' ') && CAST(:refs AS text[]) ORDER BY at;

-- name: kinds_of_acts
-- By the index on them, from one to the next: the record may be long.
WITH RECURSIVE kind AS (SELECT min(action) AS action FROM staff_action UNION ALL
    SELECT (SELECT min(action) FROM staff_action WHERE action > kind.action)
    FROM kind WHERE action IS NOT NULL)
SELECT action FROM kind WHERE action IS NOT NULL ORDER BY action;

-- name: purge_acts
SELECT staff_action_purge(:days);

-- name: bulk
-- One, with the name of who began it.
SELECT bulk_action.id, at, verb, filter, bulk_action.reason, expected, done, state, ended_at, name
FROM bulk_action JOIN staff ON staff.id = staff_id WHERE bulk_action.id = :id;

-- name: add_bulk
INSERT INTO bulk_action (id, staff_id, verb, filter, reason, expected)
VALUES (:id, :staff, :verb, :filter, :reason, :expected);

-- name: running_bulks
SELECT id, verb, expected, done FROM bulk_action WHERE state = 'running' ORDER BY at;

-- name: claim_bulk
-- Take one that no process works on, until its lease is over, with who began it; none while a restored
-- database is not accepted.
UPDATE bulk_action SET lease_until = now() + make_interval(secs => :seconds) FROM staff
WHERE bulk_action.id = (
    SELECT id FROM bulk_action WHERE state = 'running' AND NOT {held}
        AND (lease_until IS NULL OR lease_until < now())
    ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED
) AND staff.id = staff_id
RETURNING bulk_action.id, staff_id, verb, filter, reason, expected, done, name, email, roles,
    language, disabled_at;

-- name: add_done
UPDATE bulk_action SET done = done + :done, lease_until = now() + make_interval(secs => :seconds)
WHERE id = :id;

-- name: end_bulk
UPDATE bulk_action SET state = :state, ended_at = now() WHERE id = :id AND state = 'running'
RETURNING verb, expected, done;

-- fragment: in_force
revoked_at IS NULL AND expires_at > now()

-- fragment: unended
(until IS NULL OR until > now())

-- name: add_digest
INSERT INTO api_key_digest (sha256, key_id, added_in) VALUES (:sha256, :key, :version);

-- name: find_key
SELECT id, name, scopes, expires_at, revoked_at FROM api_key WHERE id = :key;

-- name: end_digests
-- End the digests of a key then, or when they would end anyway; `least` ignores NULL.
UPDATE api_key_digest SET until = least(until, :at) WHERE key_id = :key AND {unended};

-- name: count_in_force
SELECT count(*) FROM api_key WHERE {in_force};

-- name: all_keys
-- Including expired and revoked ones, the newest first; `ends`: of each digest.
SELECT id, name, purpose, owner, scopes, limits, networks, created_at, created_by, expires_at,
    revoked_at, last_used_at, calls,
    (SELECT array_agg(coalesce(until, expires_at)) FROM api_key_digest
     WHERE key_id = api_key.id AND {unended}) AS ends
FROM api_key ORDER BY created_at DESC;

-- name: keys_in_force
-- As the gateways get them.
SELECT id, jsonb_agg(jsonb_build_object('sha256', encode(sha256, 'hex'), 'until', until)) AS digests,
    scopes, limits, networks, expires_at
FROM api_key JOIN api_key_digest ON key_id = api_key.id
WHERE {in_force} AND {unended} GROUP BY id ORDER BY id;

-- name: add_key
INSERT INTO api_key (id, name, purpose, owner, scopes, limits, networks, expires_at, created_by)
VALUES (:id, :name, :purpose, :owner, :scopes, :limits, :networks, :expires_at, :created_by);

-- name: extend_key
UPDATE api_key SET expires_at = :at WHERE id = :key;

-- name: revoke_key
UPDATE api_key SET revoked_at = now() WHERE id = :key;

-- name: use_key
-- Note calls with a key; `greatest` ignores NULL. An unknown key changes nothing.
UPDATE api_key SET last_used_at = greatest(last_used_at, :at), calls = calls + :calls
WHERE id = :key;

-- name: keys_not_held
-- The keys in force that a gateway of this version, which has these digests, refuses. Each was known
-- there (`added_in`), so it was revoked, or its digest ended, before that version.
SELECT DISTINCT key_id FROM api_key_digest JOIN api_key ON api_key.id = key_id
WHERE {in_force} AND {unended} AND added_in <= :version
    AND sha256 <> ALL(CAST(:held AS bytea[]));

-- name: end_not_held
-- End those digests again,
UPDATE api_key_digest SET until = now()
WHERE {unended} AND added_in <= :version AND sha256 <> ALL(CAST(:held AS bytea[]));

-- name: revoke_ended
-- and revoke each key that has no other.
UPDATE api_key SET revoked_at = now() WHERE revoked_at IS NULL AND NOT EXISTS (
    SELECT FROM api_key_digest WHERE key_id = api_key.id AND {unended});

-- name: known_digests
SELECT count(*) FROM api_key_digest WHERE sha256 = ANY(CAST(:held AS bytea[]));

-- name: current_version
SELECT epoch, version FROM key_version ORDER BY version DESC LIMIT 1;

-- name: lock_versions
-- Let one change of the keys be under way: versions commit in the order of their numbers.
SELECT pg_advisory_xact_lock(:lock);

-- name: next_version
-- The time in milliseconds, or more than each of a database that was restored; NULL is ignored.
SELECT CAST(greatest(floor(extract(epoch FROM clock_timestamp()) * 1000),
    (SELECT max(version) FROM key_restore) + 1) AS bigint);

-- name: add_version
INSERT INTO key_version (epoch, version) VALUES (:epoch, :version);

-- name: is_known
SELECT EXISTS (SELECT FROM key_version WHERE epoch = :epoch AND version = :version)
    OR EXISTS (SELECT FROM key_restore
        WHERE epoch = :epoch AND version = :version AND accepted_at IS NOT NULL);

-- name: see_reader
-- Note that a process has this version.
INSERT INTO key_reader (process, instance, version, seen_at)
VALUES (:process, :instance, :version, clock_timestamp())
ON CONFLICT (process, instance) DO UPDATE SET
    version = excluded.version, seen_at = excluded.seen_at;

-- name: leave
DELETE FROM key_reader WHERE process = :process AND instance = :instance;

-- name: readers
-- Each process that may serve, and whether it has this version.
SELECT process, seen_at, version >= :version AS has FROM key_reader
WHERE seen_at > now() - make_interval(secs => :unseen) AND (
    seen_at > now() - make_interval(secs => :replaced) OR NOT EXISTS (
        SELECT FROM key_reader AS successor WHERE successor.process = key_reader.process
            AND successor.seen_at > key_reader.seen_at))
ORDER BY process;

-- name: see_all
-- Count each process as seen now: nobody could be seen until now.
UPDATE key_reader SET seen_at = now();

-- name: forget_unseen
-- Of the day before; `readers` already ignores them.
DELETE FROM key_reader WHERE seen_at < now() - interval '1 day';

-- name: note_restore
-- A version that this database lacks; return whether it was not noted yet.
INSERT INTO key_restore AS mine (epoch, version, held, people)
VALUES (:epoch, :version, CAST(:held AS bytea[]), :people)
ON CONFLICT (epoch, version) DO UPDATE SET
    held = coalesce(excluded.held, mine.held), people = coalesce(excluded.people, mine.people)
RETURNING xmax = 0 AS inserted;

-- name: open_restores
SELECT epoch, version, held, people, noticed_at FROM key_restore
WHERE accepted_at IS NULL ORDER BY noticed_at;

-- name: accept_restores
UPDATE key_restore SET accepted_at = now() WHERE accepted_at IS NULL;

-- name: add_sample
-- What a target has now, unless this minute has been kept.
INSERT INTO sample (at, target, pending, delivered, failed)
VALUES (date_trunc('minute', now()), :target, :pending, :delivered, :failed)
ON CONFLICT DO NOTHING;

-- name: samples_by_time
-- The most that waited, and what was added since, in each unit of time of a zone; one without a sample
-- has no row.
WITH step AS (
    SELECT target, pending,
        date_trunc(CAST(:unit AS text), at, CAST(:zone AS text)) AS begin,
        greatest(delivered - lag(delivered) OVER before, 0) AS delivered,
        greatest(failed - lag(failed) OVER before, 0) AS failed
    FROM sample WHERE at >= CAST(:since AS timestamptz)
    WINDOW before AS (PARTITION BY target ORDER BY at)
)
SELECT target, begin, max(pending) AS pending,
    CAST(sum(delivered) AS bigint) AS delivered, CAST(sum(failed) AS bigint) AS failed
FROM step GROUP BY target, begin ORDER BY target, begin;

-- name: purge_samples
DELETE FROM sample WHERE at < now() - make_interval(days => :days);
