-- fragment: phone
chat_conversations.state -> 'facts' ->> 'phone'

-- fragment: address_lock
pg_advisory_xact_lock(hashtext('followups.address'), hashtext(:email))

-- fragment: contact_locks
-- In sorted order, so that two sessions with the same contacts cannot deadlock.
FROM (SELECT contact FROM unnest(CAST(:contacts AS text[])) AS contact ORDER BY contact) AS ordered

-- fragment: takes
-- How a lead takes what a conversation says, which is `here`: 2: as open, 1: as lost here, where
-- another company was chosen, 0: another request follows it.
CASE WHEN lead.updated_at <= :since THEN 0 WHEN lead.state IN ('new', 'taken') THEN 2
    WHEN lead.state_by = 'chat' AND lead.conversation_id = here.id THEN 1 ELSE 0 END

-- fragment: is_over
(
    SELECT {takes} = 0 FROM lead WHERE lead.id = CAST(here.state ->> 'lead' AS uuid)
        AND here.state ->> 'over' IS DISTINCT FROM here.state ->> 'lead'
) AS is_over

-- name: enter
-- One statement finds or creates it, so two tabs share one conversation and their turns queue. The
-- update locks the row. It is cheap because the column has no index.
INSERT INTO chat_conversations AS here (id, session_id) VALUES (gen_random_uuid(), :session_id)
ON CONFLICT ON CONSTRAINT chat_conversations_session DO UPDATE SET score = here.score
RETURNING id, state, qualified_at, {is_over};

-- name: reenter
SELECT id, session_id, state, email, score, qualified_at, {is_over}
FROM chat_conversations AS here WHERE id = :conversation FOR UPDATE;

-- fragment: save_leads
leads AS (
    SELECT * FROM jsonb_to_recordset(:leads) AS given (id uuid, topic text, conversation_id uuid,
        heard_in uuid, language text, score int, known jsonb, notified jsonb, said jsonb,
        version int, due_at timestamptz, previous jsonb, edited text[], heard text,
        contacts text[], dropped text[], is_heard bool)
), saved_leads AS (
    INSERT INTO lead (id, topic, conversation_id, heard_in, language, score, known, notified, said,
        version, due_at, previous, edited, heard, state, state_by, updated_at, consent_at)
    SELECT id, topic, conversation_id, heard_in, language, score, known, notified, said, version,
        due_at, previous, edited, heard, CASE WHEN known ? 'lost' THEN 'lost' ELSE 'new' END,
        CASE WHEN known ? 'lost' THEN 'chat' END,
        CASE WHEN is_heard THEN now() ELSE '-infinity' END,
        (SELECT consent_at FROM lead AS old WHERE old.id = CAST(leads.previous ->> 'id' AS uuid)
            AND old.known ->> 'email' = leads.known ->> 'email')
    FROM leads
    ON CONFLICT (id) DO UPDATE SET heard_in = excluded.heard_in, language = excluded.language,
        score = excluded.score, known = excluded.known, notified = excluded.notified,
        said = excluded.said, version = excluded.version, due_at = excluded.due_at,
        edited = excluded.edited, heard = excluded.heard,
        revision = lead.revision + CAST(lead.known IS DISTINCT FROM excluded.known AS int),
        updated_at = greatest(lead.updated_at, excluded.updated_at)
), dropped_contacts AS (
    DELETE FROM lead_contact USING leads WHERE contact = ANY(dropped)
        AND (lead_contact.conversation_id = leads.heard_in
            OR lead_id = leads.id AND leads.conversation_id = leads.heard_in)
), saved_contacts AS (
    INSERT INTO lead_contact (contact, lead_id, conversation_id)
    SELECT contact, id, heard_in FROM leads, unnest(contacts) AS contact ORDER BY contact
    ON CONFLICT DO NOTHING
)

-- fragment: turn
-- One statement, because turns are most of this service's load. The parts that write leads and
-- messages are left out when there are none: the outbox's trigger notifies the relay even if
-- nothing was inserted.
WITH saved AS (
    INSERT INTO chat_message (conversation_id, author, body)
    VALUES (:conversation, 'lead', :said), (:conversation, 'bot', :reply) RETURNING id
), kept AS (
    UPDATE chat_conversations SET state = :state, email = :email, score = :score,
        qualified_at = :qualified_at, updated_at = now()
    WHERE id = :conversation
), found AS (
    INSERT INTO chat_email (email, conversation_id)
    SELECT email, :conversation FROM unnest(CAST(:named AS text[])) AS email ON CONFLICT DO NOTHING
)

-- fragment: notified
, notified AS ({outbox_add})

-- fragment: end_of_turn
SELECT max(id), {address_lock} FROM saved

-- name: save_turn
{turn} {end_of_turn};

-- name: save_turn_with_messages
{turn} {notified} {end_of_turn};

-- name: save_turn_with_leads
{turn}, {save_leads} {end_of_turn};

-- name: save_turn_with_messages_leads
{turn} {notified}, {save_leads} {end_of_turn};

-- name: save_form
-- What a form says, as a message of its conversation.
WITH said AS (
    INSERT INTO chat_message (conversation_id, author, body) VALUES (:conversation, 'lead', :said)
), named AS (
    INSERT INTO chat_email (email, conversation_id)
    SELECT email, :conversation FROM (SELECT CAST(:email AS text)) AS named (email)
    WHERE email IS NOT NULL ON CONFLICT DO NOTHING
)
UPDATE chat_conversations SET state = :state, email = :email, score = :score,
    qualified_at = :qualified_at, updated_at = now()
WHERE id = :conversation;

-- name: conversation
-- Protected from deletion until the transaction ends, as the next two are.
SELECT {of_chat_conversations} FROM chat_conversations WHERE id = :conversation FOR KEY SHARE;

-- name: latest_conversation
SELECT id FROM chat_conversations WHERE email = :email
ORDER BY updated_at DESC LIMIT 1 FOR KEY SHARE;

-- name: make_conversation
INSERT INTO chat_conversations (id, email) VALUES (gen_random_uuid(), :email)
ON CONFLICT (email) WHERE session_id IS NULL DO UPDATE SET updated_at = now() RETURNING id;

-- name: lock_imported
SELECT email, state, score FROM chat_conversations
WHERE email = ANY(CAST(:emails AS text[])) AND session_id IS NULL ORDER BY email FOR UPDATE;

-- name: save_imported
INSERT INTO chat_conversations (id, email, state, score)
SELECT gen_random_uuid(), email, state, score
FROM jsonb_to_recordset(:imported) AS given (email text, state jsonb, score int) ORDER BY email
ON CONFLICT (email) WHERE session_id IS NULL DO UPDATE
SET state = excluded.state, score = excluded.score, updated_at = now();

-- name: known_grants
SELECT id FROM imported_grant WHERE id = ANY(CAST(:ids AS uuid[]));

-- name: keep_grants
INSERT INTO imported_grant (id, conversation_id)
SELECT given.id, chat_conversations.id
FROM unnest(CAST(:ids AS uuid[]), CAST(:emails AS text[])) AS given (id, email)
JOIN chat_conversations ON chat_conversations.email = given.email AND session_id IS NULL
ON CONFLICT DO NOTHING;

-- fragment: of_recipient
(id = :conversation OR email = :email)

-- name: end_followups
-- `staff` never replaces `bounce`.
UPDATE chat_conversations SET followups_ended_by = least(followups_ended_by, :reason)
WHERE {of_recipient};

-- fragment: resume
UPDATE chat_conversations SET followups_ended_by = NULL WHERE id IN (
    SELECT id FROM chat_conversations WHERE {of_recipient} AND followups_ended_by = 'staff'
    FOR UPDATE

-- name: resume_followups
{resume});

-- name: resume_followups_of_free
{resume} SKIP LOCKED);

-- fragment: barred
(EXISTS (SELECT FROM undeliverable WHERE email = :email) OR EXISTS (
    SELECT FROM chat_conversations WHERE {of_recipient} AND followups_ended_by IS NOT NULL))

-- name: is_barred
-- Under the address lock.
SELECT {barred};

-- name: own
-- The conversations of an address, or of a number and no address: people who live together share one.
SELECT {of_chat_conversations} FROM chat_conversations
WHERE email = :email OR CAST(:email AS text) IS NULL AND email IS NULL AND {phone} = :phone
ORDER BY id FOR UPDATE;

-- name: correct
-- An address has one conversation without a chat: this one gets a session of its own if the address
-- is new to it.
UPDATE chat_conversations SET state = :state, email = :email,
    session_id = CASE WHEN email IS DISTINCT FROM :email
        THEN coalesce(session_id, CAST(gen_random_uuid() AS text)) ELSE session_id END
WHERE id = :id;

-- fragment: long_ago
now() - make_interval(days => :days)

-- name: forget
-- Leads go with their conversation: a person may have come back in another one, or sent a form.
DELETE FROM chat_conversations WHERE id IN (
    SELECT id FROM chat_conversations AS here
    WHERE updated_at < {long_ago} AND NOT EXISTS (
        SELECT FROM followup_event WHERE conversation_id = here.id
            AND (status IN ('scheduled', 'handed_over') OR due_at > {long_ago}
                OR handed_over_at > {long_ago})
    ) AND NOT EXISTS (
        SELECT FROM lead WHERE lead.updated_at > {long_ago} AND (lead.conversation_id = here.id
            OR lead.id IN (SELECT lead_id FROM lead_contact WHERE conversation_id = here.id))
    ) AND NOT EXISTS (
        SELECT FROM lead_submission WHERE conversation_id = here.id AND accepted_at > {long_ago}
    )
    ORDER BY updated_at LIMIT :limit FOR UPDATE SKIP LOCKED);

-- name: addresses
-- The e-mail addresses and phone numbers that have records.
SELECT held AS address FROM (
    SELECT email AS held FROM chat_conversations UNION SELECT email FROM followup_event
    UNION SELECT email FROM chat_email UNION SELECT {phone} FROM chat_conversations
    UNION SELECT email FROM lead_submission UNION SELECT phone FROM lead_submission
    UNION SELECT email FROM mail UNION SELECT email FROM undeliverable
) AS every WHERE held IS NOT NULL ORDER BY held OFFSET :offset LIMIT :limit;

-- fragment: sent_by
(lead_submission.email = :email OR lead_submission.phone = :phone)

-- fragment: of_subject
-- A data subject's: the whole conversation, even if it names several addresses; one with another
-- contact only mentions this one.
(
    chat_conversations.email = :email OR {phone} = :phone
    OR chat_conversations.id IN (
        SELECT conversation_id FROM followup_event WHERE followup_event.email = :email)
    OR chat_conversations.email IS NULL AND {phone} IS NULL AND chat_conversations.id IN (
        SELECT conversation_id FROM chat_email WHERE chat_email.email = :email)
    OR chat_conversations.id IN (
        SELECT conversation_id FROM lead_submission WHERE {sent_by} AND conversation_id IS NOT NULL)
)

-- name: theirs
SELECT id, {phone} AS phone FROM chat_conversations WHERE {of_subject};

-- name: lock_theirs
SELECT id, state FROM chat_conversations WHERE {of_subject} FOR UPDATE;

-- fragment: these
ANY(CAST(:conversations AS uuid[]))

-- name: erase_leads
DELETE FROM lead WHERE conversation_id = {these};

-- fragment: about
-- Unpublished leads, grants and mails.
body ->> 'email' = :email OR body ->> 'conversation_id' = ANY(CAST(:conversations AS text[]))
    OR body -> 'payload' ->> 'conversation_id' = ANY(CAST(:conversations AS text[]))

-- name: erase_outbox
DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE {about} FOR UPDATE SKIP LOCKED);

-- name: outbox_about
SELECT count(*) FROM outbox WHERE {about};

-- name: erase_submissions
DELETE FROM lead_submission WHERE {sent_by};

-- name: erase_conversations
DELETE FROM chat_conversations WHERE id = {these} OR {of_subject};

-- name: sent_in_forms
SELECT id FROM lead_submission WHERE conversation_id = {these};

-- name: added_to
SELECT {of_lead} FROM lead WHERE id = ANY(CAST(:ids AS uuid[])) OR id IN (
    SELECT lead_id FROM lead_contact
    WHERE contact = ANY(CAST(:contacts AS text[])) OR conversation_id = {these})
ORDER BY created_at, id FOR UPDATE;

-- name: take_out
UPDATE lead SET known = :facts, notified = :told, heard = right(coalesce((
        SELECT string_agg(body, ' ') FROM chat_message
        WHERE chat_message.conversation_id = lead.conversation_id AND author = 'lead'
    ), ''), 4000),
    heard_in = CASE WHEN heard_in = {these} THEN conversation_id ELSE heard_in END,
    said = CASE WHEN heard_in = {these} THEN '[]' ELSE said END
WHERE id = :id;

-- name: drop_contacts
DELETE FROM lead_contact WHERE contact = ANY(CAST(:contacts AS text[]));

-- name: lock_mentions
-- Conversations of others that name an address.
SELECT id FROM chat_conversations
WHERE id IN (SELECT conversation_id FROM chat_email WHERE email = :email)
    AND {of_subject} IS NOT TRUE FOR UPDATE;

-- name: mentions_conversation
SELECT id, state FROM chat_conversations WHERE id = {these};

-- name: strike_conversation
UPDATE chat_conversations SET state = :state WHERE id = :id;

-- name: mentions_message
SELECT id, body FROM chat_message WHERE conversation_id = {these};

-- name: strike_message
UPDATE chat_message SET body = :body WHERE id = :id;

-- name: mentions_lead
SELECT id, known AS facts, notified AS told, said AS words, heard FROM lead
WHERE conversation_id = {these} OR heard_in = {these};

-- name: strike_lead
UPDATE lead SET known = :facts, notified = :told, said = :words, heard = :heard WHERE id = :id;

-- name: mentions_act
-- Staff may have named anyone, in a note about anyone.
SELECT id, text, data FROM lead_act
WHERE strpos(lower(text), :email) > 0 OR strpos(lower(CAST(data AS text)), :email) > 0;

-- name: strike_act
UPDATE lead_act SET text = :text, data = :data WHERE id = :id;

-- name: drop_mentions
DELETE FROM chat_email WHERE email = :email AND conversation_id = {these};

-- fragment: mine
(SELECT chat_conversations.id FROM chat_conversations WHERE {of_subject})

-- fragment: page
OFFSET :offset LIMIT :limit

-- name: held_conversations
SELECT {of_chat_conversations} FROM chat_conversations WHERE {of_subject} ORDER BY created_at, id {page};

-- name: held_messages
SELECT {of_chat_message} FROM chat_message WHERE conversation_id IN {mine} ORDER BY id {page};

-- name: held_followups
SELECT {of_followup_event} FROM followup_event WHERE email = :email OR conversation_id IN {mine}
ORDER BY created_at, id {page};

-- name: held_leads
SELECT {of_lead} FROM lead WHERE conversation_id IN {mine} ORDER BY created_at, id {page};

-- name: held_lead_acts
SELECT {of_lead_act} FROM lead_act
WHERE lead_id IN (SELECT lead.id FROM lead WHERE conversation_id IN {mine}) ORDER BY id {page};

-- name: held_submissions
SELECT {of_lead_submission} FROM lead_submission WHERE {sent_by} OR conversation_id IN {mine}
ORDER BY accepted_at, id {page};

-- name: held_mails
SELECT {of_mail} FROM mail WHERE email = :email OR conversation_id IN {mine}
ORDER BY received_at, key {page};

-- fragment: choose
SELECT {of_lead}, takes FROM (SELECT CAST(:conversation AS uuid) AS id) AS here, lead,
    LATERAL (SELECT {takes} AS takes) AS how

-- name: find
-- The contacts are locked first, and in a statement of their own: the snapshot must be newer than
-- the locks. Then the newest that is open, and before it the conversation's own: it stays the same
-- lead, whatever contact is added.
SELECT pg_advisory_xact_lock(hashtext('followups.contact'), hashtext(contact)) {contact_locks};
{choose}
WHERE topic = :topic AND (conversation_id = :conversation OR lead.id = :known
    OR lead.id = ANY(ARRAY(
        SELECT lead_id FROM lead_contact WHERE contact = ANY(CAST(:contacts AS text[])))))
ORDER BY takes DESC, takes > 0 AND lead.id = :known DESC,
    takes > 0 AND conversation_id = :conversation DESC, created_at DESC, lead.id
LIMIT 1 FOR UPDATE OF lead;

-- name: follower
{choose}
WHERE previous ->> 'id' = :id LIMIT 1 FOR UPDATE OF lead;

-- name: lead_ids
SELECT id FROM lead WHERE conversation_id = :conversation AND topic = :topic;

-- name: lock_leads
-- The requests that began in these conversations, as `find` locks them: contacts, then from older
-- to newer.
SELECT pg_advisory_xact_lock(hashtext('followups.contact'), hashtext(contact)) {contact_locks};
SELECT id, conversation_id FROM lead WHERE conversation_id = {these} AND topic = 'lead'
ORDER BY created_at, id FOR UPDATE;

-- name: save_leads
WITH {save_leads} SELECT;

-- fragment: whole_lead
-- With the request that follows it, and the form by which it came.
{of_lead}, (
    SELECT later.id FROM lead AS later WHERE later.previous ->> 'id' = CAST(lead.id AS text)
) AS next, (
    SELECT form FROM lead_submission WHERE lead_id = lead.id ORDER BY accepted_at LIMIT 1
) AS form

-- name: lead
SELECT {whole_lead} FROM lead WHERE id = :id;

-- name: lock_lead
SELECT {whole_lead} FROM lead WHERE id = :id FOR UPDATE;

-- fragment: words
lead_words(known, heard)

-- fragment: listed
-- Parameters are written into the statement, so that a filter that is NULL costs nothing.
SELECT {whole_lead} FROM lead
WHERE (CAST(:in_state AS text) IS NULL OR state = :in_state)
    AND (CAST(:topic AS text) IS NULL OR topic = :topic)
    AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
    AND (CAST(:until AS timestamptz) IS NULL OR created_at < :until)
    AND (CAST(:min_score AS integer) IS NULL OR score >= :min_score)
    AND (CAST(:email AS text) IS NULL OR known ->> 'email' = :email)
    AND (CAST(:phone AS text) IS NULL OR known ->> 'phone' = :phone)
    AND (CAST(:owner AS text) IS NULL OR owner = :owner)
    AND (CAST(:call_before AS timestamptz) IS NULL OR call_at < :call_before AND state = 'taken')
    AND (CAST(:person AS text) IS NULL OR id = ANY(ARRAY(
        SELECT lead_id FROM lead_contact
        WHERE contact IN (concat('email:', :person), concat('phone:', :person)))))
    AND (CAST(:q0 AS text) IS NULL OR {words} LIKE :q0)
    AND (CAST(:q1 AS text) IS NULL OR {words} LIKE :q1)
    AND (CAST(:q2 AS text) IS NULL OR {words} LIKE :q2)
    AND (CAST(:q3 AS text) IS NULL OR {words} LIKE :q3)
    AND (CAST(:q4 AS text) IS NULL OR {words} LIKE :q4)
    AND (CAST(:q5 AS text) IS NULL OR {words} LIKE :q5)
    AND (CAST(:q6 AS text) IS NULL OR {words} LIKE :q6)
    AND (CAST(:q7 AS text) IS NULL OR {words} LIKE :q7)
    AND (CAST(:after AS uuid) IS NULL OR (created_at, id)

-- fragment: after
(SELECT created_at, id FROM lead WHERE id = :after))

-- name: leads_newest
{listed} < {after} ORDER BY created_at DESC, id DESC LIMIT :limit;

-- name: leads_oldest
{listed} > {after} ORDER BY created_at, id LIMIT :limit;

-- name: due_leads
-- With the session of the conversation of the last change.
SELECT {of_lead}, session_id FROM lead
LEFT JOIN chat_conversations AS talk ON talk.id = lead.heard_in
WHERE lead.due_at <= now() ORDER BY lead.due_at LIMIT :limit FOR UPDATE OF lead SKIP LOCKED;

-- name: due_calls
-- Planned calls whose time has come, once: the lead, and what was planned by whom.
WITH due AS (
    SELECT id FROM lead WHERE call_at <= now() AND reminded_at IS NULL AND state IN ('new', 'taken')
    ORDER BY call_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE lead SET reminded_at = now() FROM due, LATERAL (
    SELECT text, by FROM lead_act WHERE lead_id = due.id AND kind = 'call' ORDER BY id DESC LIMIT 1
) AS plan
WHERE lead.id = due.id RETURNING {of_lead}, plan.text AS plan, plan.by AS planned_by;

-- name: hear_consent
-- Unless a newer state is noted. If staff know another one, they are notified within `patience`. It
-- is no news that somebody who never agreed wants no mails.
UPDATE lead SET known = known || jsonb_build_object('may_mail', may), consent_at = since,
    due_at = CASE WHEN notified IS NULL OR coalesce(known ->> 'may_mail', 'refused') = may
        THEN due_at ELSE coalesce(due_at, now() + patience) END
FROM lead_contact, (VALUES (CAST(:may_mail AS text), CAST(:at AS timestamptz),
    CAST(:patience AS interval))) AS heard (may, since, patience)
WHERE contact = 'email:' || :email AND lead_id = lead.id AND known ->> 'email' = :email
    AND coalesce(consent_at < since, true);

-- name: acts
SELECT {of_lead_act} FROM lead_act WHERE lead_id = :lead AND revision > :after
    AND (CAST(:kind AS text) IS NULL OR kind = :kind)
ORDER BY id DESC LIMIT :limit;

-- name: save_submission
-- A suspected one is replaced.
INSERT INTO lead_submission ({of_lead_submission})
SELECT {of_lead_submission} FROM jsonb_populate_record(CAST(NULL AS lead_submission), :submission)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, held = excluded.held,
    conversation_id = excluded.conversation_id, lead_id = excluded.lead_id,
    taken_by = excluded.taken_by;

-- name: suspected
SELECT id, form, form_version, language, fields, page, suspicion, accepted_at FROM lead_submission
WHERE conversation_id IS NULL AND state = 'suspected'
    AND (CAST(:after AS uuid) IS NULL OR (accepted_at, id) > (
        SELECT accepted_at, id FROM lead_submission WHERE id = :after))
ORDER BY accepted_at, id LIMIT :limit;

-- name: submission
SELECT {of_lead_submission} FROM lead_submission WHERE id = :id;

-- name: lock_submission
SELECT {of_lead_submission} FROM lead_submission WHERE id = :id FOR UPDATE;

-- name: forms_of
SELECT id FROM lead_submission WHERE lead_id = :lead
    OR lead_id IS NULL AND conversation_id = ANY(CAST(:conversations AS uuid[]))
ORDER BY accepted_at DESC LIMIT :limit;

-- name: discard
-- The fact that it existed is kept for as long as a suspected one.
UPDATE lead_submission SET state = 'discarded', held = NULL, fields = '{}', email = NULL,
    phone = NULL, taken_by = :by
WHERE id = :id;

-- name: forget_apart
DELETE FROM lead_submission WHERE id IN (
    SELECT id FROM lead_submission WHERE conversation_id IS NULL AND accepted_at < {long_ago}
    LIMIT :limit FOR UPDATE SKIP LOCKED);

-- name: forget_erased
DELETE FROM erased_contact WHERE erased_at < {long_ago};

-- name: lock_erased
SELECT pg_advisory_xact_lock(hashtext('followups.erased'), hashtext(contact)) {contact_locks};

-- name: mark_erased
INSERT INTO erased_contact (hash, erased_at)
SELECT hash, now() FROM unnest(CAST(:hashes AS text[])) AS hash
ON CONFLICT (hash) DO UPDATE SET erased_at = now();

-- name: erased_since
SELECT EXISTS (
    SELECT FROM erased_contact WHERE hash = ANY(CAST(:hashes AS text[])) AND erased_at > :at);

-- name: lock_address
SELECT {address_lock};

-- name: enrol
WITH there AS (
    SELECT * FROM followup_event WHERE sequence = :sequence AND conversation_id = :conversation
        OR email = :email AND status IN ('scheduled', 'handed_over')
), added AS (
    INSERT INTO followup_event (id, conversation_id, followup_number, email, sequence, step,
        enrolled_by, due_at, request_id)
    SELECT gen_random_uuid(), :conversation, last.number + due.step, :email, :sequence, due.step,
        :by, due.at, :request_id
    FROM unnest(CAST(:due AS timestamptz[])) WITH ORDINALITY AS due (at, step), (
        SELECT coalesce(max(followup_number), 0) AS number
        FROM followup_event WHERE conversation_id = :conversation
    ) AS last
    WHERE NOT EXISTS (SELECT FROM there) AND NOT {barred}
    RETURNING *
)
SELECT {of_followup_event}, false AS is_new FROM there UNION ALL SELECT {of_followup_event}, true FROM added
ORDER BY created_at, followup_number;

-- name: steps
-- Of an address, a conversation or a status. Compared apart and not as rows, which no index sorts.
SELECT {of_followup_event} FROM followup_event
WHERE (email = :email OR conversation_id = :conversation_id OR status = :status)
    AND (CAST(:after AS uuid) IS NULL OR (due_at, id) > (
        SELECT due_at, id FROM followup_event WHERE id = :after))
ORDER BY due_at, id LIMIT :limit;

-- name: heard
-- What a turn needs of them.
SELECT id, conversation_id, followup_number, sequence, step, enrolled_by, status, handed_over_at
FROM followup_event WHERE conversation_id = :conversation ORDER BY created_at, followup_number;

-- name: step
SELECT {of_followup_event} FROM followup_event WHERE id = :id;

-- name: newest_to
SELECT {of_followup_event} FROM followup_event WHERE email = :email AND handed_over_at IS NOT NULL
ORDER BY handed_over_at DESC LIMIT 1;

-- name: retime
UPDATE followup_event SET due_at = given.due_at, enrolled_by = :by
FROM unnest(CAST(:ids AS uuid[]), CAST(:due AS timestamptz[])) AS given (id, due_at)
WHERE followup_event.id = given.id AND status = 'scheduled';

-- name: move
-- From a wrong address to the one that replaces it, if any. One that another conversation has enrolled
-- keeps its own steps and gets no second ones.
UPDATE followup_event SET email = :new
WHERE CAST(:new AS text) IS NOT NULL AND conversation_id = :conversation AND email = :old AND status = 'scheduled' AND NOT EXISTS (
    SELECT FROM followup_event AS other WHERE other.email = :new
        AND other.conversation_id <> :conversation
        AND other.status IN ('scheduled', 'handed_over'));

-- fragment: which
CASE WHEN :both THEN conversation_id = {these} AND email = :email
    ELSE conversation_id = {these} OR email = :email END
AND (CAST(:sequence AS text) IS NULL OR sequence = :sequence AND followup_number >= :number)

-- name: cancel
UPDATE followup_event SET status = 'cancelled', reason = :reason
WHERE {which} AND status = 'scheduled' RETURNING id, conversation_id, email;

-- name: recall
-- What still waits in the outbox. A row that the relay has locked is skipped: it is being published,
-- and its outcome will follow. Alerts decides about the others; one that comes back is not
-- rescheduled.
WITH waiting AS (
    SELECT outbox.id, followup_event.id AS event FROM followup_event JOIN outbox
        ON outbox.message_id = CAST(coalesce(followup_event.message_id, followup_event.id) AS text)
    WHERE {which} AND status = 'handed_over' FOR UPDATE OF outbox SKIP LOCKED
), taken_back AS (
    DELETE FROM outbox USING waiting WHERE outbox.id = waiting.id RETURNING event
), recalled AS (
    UPDATE followup_event SET status = 'cancelled', reason = :reason FROM taken_back
    WHERE id = event AND status = 'handed_over' RETURNING id, conversation_id, email
), others AS (
    UPDATE followup_event SET stopped_by = :reason
    WHERE {which} AND status = ANY(CAST(:replaces AS text[]))
        AND id NOT IN (SELECT event FROM taken_back)
)
SELECT id, conversation_id, email FROM recalled;

-- name: claim
-- A scalar subquery, because an anti-join would read every scheduled step. It is outside the first
-- part, where it would run for every due step. FILTER instead of WHERE, because the planner would
-- scan the whole partial index per step when it expects few scheduled ones.
WITH due AS MATERIALIZED (
    SELECT id, conversation_id, followup_number FROM followup_event
    WHERE status = 'scheduled' AND due_at <= now()
    ORDER BY due_at, followup_number LIMIT :limit FOR UPDATE SKIP LOCKED
), looked_at AS MATERIALIZED (
    SELECT due.id, (
        SELECT max(earlier.due_at) FILTER (WHERE earlier.status = 'scheduled')
        FROM followup_event AS earlier
        WHERE earlier.conversation_id = due.conversation_id
            AND earlier.followup_number < due.followup_number
    ) AS waits_for FROM due
)
UPDATE followup_event AS taken
SET status = CASE WHEN waits_for IS NULL THEN 'handed_over' ELSE 'scheduled' END,
    handed_over_at = CASE WHEN waits_for IS NULL THEN now() END,
    due_at = greatest(taken.due_at, waits_for)
FROM looked_at, chat_conversations AS talk
WHERE taken.id = looked_at.id AND talk.id = taken.conversation_id
RETURNING taken.id, taken.conversation_id, followup_number, taken.email, sequence, step,
    taken.due_at, handed_over_at, request_id, message_id, talk.state;

-- name: lock_caps
SELECT email FROM unnest(CAST(:emails AS text[])) AS email
WHERE pg_try_advisory_xact_lock(hashtext('followups.cap'), hashtext(email));

-- name: recent_hand_overs
SELECT email, left_at, is_unknown
FROM followup_event, LATERAL (SELECT greatest(handed_over_at, sent_at, outcome_at) AS left_at,
    status = 'handed_over' AS is_unknown) AS how
WHERE email = ANY(CAST(:emails AS text[])) AND id <> ALL(CAST(:mine AS uuid[]))
    AND (is_unknown OR status IN ('sent', 'in_doubt') AND left_at > now() - interval '24 hours');

-- name: put_off
-- Undoes a claim of this transaction; later steps wait for this one.
UPDATE followup_event SET status = 'scheduled', handed_over_at = NULL,
    due_at = greatest(due_at, :due_at)
WHERE id = :id;

-- name: fail
UPDATE followup_event SET status = 'failed', reason = :reason, handed_over_at = NULL
WHERE id = :id;

-- fragment: in_flight
followup_event.id = :id AND coalesce(message_id, followup_event.id) = :message
    AND status = ANY(CAST(:replaces AS text[]))

-- name: reschedule
-- `pause`, because the clocks of alerts and of this service may differ.
UPDATE followup_event
SET status = CASE WHEN stopped_by IS NULL THEN 'scheduled' ELSE 'cancelled' END,
    reason = stopped_by, message_id = gen_random_uuid(), handed_over_at = NULL, outcome_at = NULL,
    due_at = greatest(due_at, now() + CAST(:pause AS interval), CAST(:not_before AS timestamptz))
WHERE {in_flight};

-- name: record_outcome
UPDATE followup_event SET status = :outcome, outcome_at = :at, reason = :reason,
    sent_at = CASE WHEN :sent THEN CAST(:at AS timestamptz) END
WHERE {in_flight} AND handed_over_at IS NOT NULL
    AND (:sent OR coalesce(outcome_at < :at, true));

-- name: doubt
UPDATE followup_event SET status = 'in_doubt', reason = 'no_outcome'
WHERE status = 'handed_over' AND handed_over_at < {long_ago} AND NOT EXISTS (
    SELECT FROM outbox
    WHERE outbox.message_id = CAST(coalesce(followup_event.message_id, followup_event.id) AS text));

-- fragment: today
CAST(now() AT TIME ZONE :zone AS date)

-- fragment: begin
CAST({today} - 13 AS timestamp) AT TIME ZONE :zone

-- name: open_leads
-- What waits, and what one person has (`names`: as releases wrote it).
WITH open AS (
    SELECT topic, state, count(*) AS requests, min(state_at) AS oldest,
        count(*) FILTER (WHERE owner = ANY(CAST(:names AS text[]))) AS mine
    FROM lead WHERE state IN ('new', 'taken') GROUP BY topic, state
), leads AS (
    SELECT coalesce(max(requests) FILTER (WHERE state = 'new'), 0) AS waiting,
        max(oldest) FILTER (WHERE state = 'new') AS waiting_since,
        coalesce(max(requests) FILTER (WHERE state = 'taken'), 0) AS taken,
        coalesce(max(mine) FILTER (WHERE state = 'taken'), 0) AS mine
    FROM open WHERE topic = 'lead'
)
SELECT waiting, waiting_since, taken, mine, (
        SELECT count(*) FROM lead WHERE state = 'taken' AND owner = ANY(CAST(:names AS text[]))
            AND call_at < CAST({today} + 1 AS timestamp) AT TIME ZONE :zone
    ) AS calls_today, (
        SELECT coalesce(jsonb_object_agg(topic, requests), '{}') FROM open
        WHERE state = 'new' AND topic <> 'lead'
    ) AS topics
FROM leads;

-- fragment: span
-- The day, and the week: the last seven days, or those before.
CASE WHEN day > {today} - 7 THEN 'this_week' ELSE 'week_before' END AS week

-- name: two_weeks
-- Of each day of two weeks and of `this_week` and the `week_before`: how many leads came and were
-- answered, and how many were won and lost, with the values of the orders, and of the budgets.
-- `due`: those that were answered, or waited for an hour. Of leads that releases before 0007
-- answered, the state's time is the answer's.
WITH came AS (
    SELECT coalesce(CAST(day AS text), week) AS span, count(*) AS leads, count(took) AS answered,
        count(*) FILTER (WHERE took IS NOT NULL
            OR state = 'new' AND created_at < now() - interval '1 hour') AS due,
        count(*) FILTER (WHERE took <= interval '1 hour') AS within_hour,
        round(extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY took))) AS median
    FROM (
        SELECT CAST(created_at AT TIME ZONE :zone AS date) AS day, state, created_at,
            coalesce(answered_at, CASE WHEN state <> 'new' AND state_by <> 'chat' THEN state_at END)
                - created_at AS took
        FROM lead WHERE topic = 'lead' AND created_at >= {begin}
    ) AS lately, LATERAL (SELECT {span}) AS spans
    GROUP BY GROUPING SETS ((day), (week))
), sums AS (
    SELECT coalesce(CAST(day AS text), week) AS span, state, currency, count(*) AS leads,
        sum(value) AS value
    FROM (
        SELECT CAST(state_at AT TIME ZONE :zone AS date) AS day, state, currency, value
        FROM lead, LATERAL (SELECT
            CASE state WHEN 'won' THEN order_value ELSE CAST(known ->> 'budget' AS numeric) END,
            coalesce(CASE state WHEN 'won' THEN order_currency ELSE known ->> 'currency' END, 'PLN')
        ) AS money (value, currency)
        WHERE state IN ('won', 'lost') AND topic = 'lead' AND state_at >= {begin}
    ) AS ended, LATERAL (SELECT {span}) AS spans
    GROUP BY GROUPING SETS ((day, state, currency), (week, state, currency))
), ended AS (
    SELECT span, sum(leads) FILTER (WHERE state = 'won') AS won,
        sum(leads) FILTER (WHERE state = 'lost') AS lost,
        jsonb_object_agg(currency, value) FILTER (WHERE state = 'won' AND value > 0) AS won_values,
        jsonb_object_agg(currency, value) FILTER (WHERE state = 'lost' AND value > 0) AS lost_values
    FROM sums GROUP BY span
)
SELECT span, jsonb_build_object('leads', coalesce(leads, 0), 'answered', coalesce(answered, 0),
    'due', coalesce(due, 0), 'within_hour', coalesce(within_hour, 0),
    'median_answer_seconds', median, 'won', coalesce(won, 0), 'lost', coalesce(lost, 0),
    'won_values', coalesce(won_values, '{}'), 'lost_values', coalesce(lost_values, '{}')) AS counts
FROM (
    SELECT CAST({today} - ago AS text) FROM generate_series(0, 13) AS ago
    UNION VALUES ('this_week'), ('week_before')
) AS spans (span) LEFT JOIN came USING (span) LEFT JOIN ended USING (span)
ORDER BY span;

-- name: stream
-- What was said, sent and done, and what came back: of each the latest, all in order.
SELECT kind, by, at, text, data FROM (
    (
        SELECT author AS kind, CAST(NULL AS text) AS by, created_at AS at, body AS text,
            CAST('{}' AS jsonb) AS data, id AS place
        FROM chat_message WHERE conversation_id = :conversation ORDER BY id DESC LIMIT :limit
    ) UNION ALL (
        SELECT 'mail', NULL, sent_at, concat(sequence, ' ', step), '{}', 0 FROM followup_event
        WHERE conversation_id = :conversation AND status = 'sent' ORDER BY sent_at DESC LIMIT :limit
    ) UNION ALL (
        SELECT 'returned', NULL, received_at, concat_ws(' ', kind, status), '{}', 0 FROM mail
        WHERE conversation_id = :conversation
            AND kind IN ('hard', 'soft', 'complaint', 'unsubscribe')
        ORDER BY received_at DESC LIMIT :limit
    ) UNION ALL (
        SELECT kind, by, at, text, data, id FROM lead_act WHERE lead_id = :lead
        ORDER BY id DESC LIMIT :limit
    )
) AS each ORDER BY at, place;

-- name: take
INSERT INTO mail (key, kind, step_id, conversation_id, email, status)
VALUES (:key, :kind, :step, :conversation, :email, :status) ON CONFLICT DO NOTHING;

-- name: name
INSERT INTO chat_email (email, conversation_id)
SELECT email, :conversation FROM unnest(CAST(:emails AS text[])) AS email ON CONFLICT DO NOTHING;

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

-- name: by_step
-- How the steps of the last 90 days stand, and why they ended.
SELECT sequence, step, status, CASE WHEN status = 'cancelled' THEN reason END AS reason, count(*)
FROM followup_event WHERE created_at > now() - interval '90 days'
GROUP BY 1, 2, 3, 4;

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

-- name: not_reported
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

-- name: forget_mails
WITH addresses AS (
    DELETE FROM undeliverable WHERE since < now() - make_interval(days => :days)
)
DELETE FROM mail WHERE key IN (
    SELECT key FROM mail WHERE received_at < now() - make_interval(days => :days)
        OR conversation_id IS NULL AND received_at < now() - interval '30 days'
    LIMIT :limit);

-- name: erase_mails
WITH gone AS (DELETE FROM undeliverable WHERE email = :email)
DELETE FROM mail WHERE email = :email;

-- name: place
SELECT validity, uid FROM mailbox WHERE name = :name;

-- name: move_place
INSERT INTO mailbox (name, validity, uid, left_alone) VALUES (:name, :validity, :uid, :more)
ON CONFLICT (name) DO UPDATE SET validity = excluded.validity, uid = excluded.uid,
    left_alone = mailbox.left_alone + excluded.left_alone;

-- name: add_sent
-- Steps that another system has sent to imported conversations, so that they are never sent again: a
-- scheduled one with that number is sent now. Under the address lock of `steps.lock_address`, or a
-- concurrent enrolment would not see them.
WITH locked AS MATERIALIZED (
    SELECT count(pg_advisory_xact_lock(hashtext('followups.address'), hashtext(email))) AS held
    FROM (SELECT DISTINCT email FROM unnest(CAST(:emails AS text[])) AS email ORDER BY email) AS ordered
)
INSERT INTO followup_event (id, conversation_id, followup_number, email, sequence, step,
    enrolled_by, status, due_at, handed_over_at, sent_at)
SELECT gen_random_uuid(), there.id, number, email, :name, number, 'api', 'sent', at, at, at
FROM locked, unnest(CAST(:emails AS text[]), CAST(:numbers AS integer[]),
    CAST(:times AS timestamptz[])) AS given (email, number, at)
JOIN chat_conversations AS there USING (email)
WHERE session_id IS NULL
ON CONFLICT ON CONSTRAINT followup_event_number DO UPDATE SET
    status = 'sent', handed_over_at = excluded.sent_at, sent_at = excluded.sent_at
    WHERE followup_event.status = 'scheduled';
