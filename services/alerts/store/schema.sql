-- Generated from the migrations by `make schema`; a test compares the two.

CREATE FUNCTION dead_letter_status(state text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (state = ANY (ARRAY['pending', 'claimed', 'sending'])) THEN 'pending' ELSE state END;
CREATE FUNCTION outbox_notify() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA || '_outbox', '');
    RETURN NULL;
END
$$;
CREATE FUNCTION replica_kept() RETURNS trigger
    LANGUAGE plpgsql
    AS $$BEGIN RETURN NULL; END$$;
CREATE VIEW dead_letter_queue AS
 SELECT alert_id AS id,
    event_type,
    target,
    payload,
    error AS error_message,
    GREATEST((attempts - 1), 0) AS retry_count,
    dead_letter_status(state) AS status,
    created_at,
    last_attempt_at AS last_retry_at
   FROM delivery
  WHERE ((error IS NOT NULL) AND (state <> ALL (ARRAY['discarded', 'in_doubt'])));

CREATE TABLE alert_case (
    alert_id uuid NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL,
    source text NOT NULL,
    dedup_key text,
    request_id text,
    payload jsonb,
    subjects bytea[] DEFAULT '{}'::bytea[] NOT NULL,
    accepted_at timestamptz NOT NULL,
    chain jsonb NOT NULL,
    hours text NOT NULL,
    state text DEFAULT 'open' NOT NULL,
    reason text,
    outcome text,
    owner text,
    owner_name text,
    late boolean DEFAULT false NOT NULL,
    generation integer DEFAULT 0 NOT NULL,
    step integer DEFAULT 0 NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    next_at timestamptz,
    reminded boolean DEFAULT false NOT NULL,
    laters integer DEFAULT 0 NOT NULL,
    silence bigint,
    opened_at timestamptz DEFAULT now() NOT NULL,
    answered_at timestamptz,
    ended_at timestamptz,
    caller text,
    failures integer DEFAULT 0 NOT NULL,
    told integer DEFAULT 0 NOT NULL,
    wished boolean DEFAULT false NOT NULL,
    CONSTRAINT alert_case_answered_by_its_owner CHECK ((((state = 'answered') = (owner IS NOT NULL)) AND (num_nonnulls(owner, owner_name, answered_at) = ANY (ARRAY[0, 3])))),
    CONSTRAINT alert_case_cancelled_with_a_reason CHECK (((state = 'cancelled') = (reason IS NOT NULL))),
    CONSTRAINT alert_case_due_while_open_or_without_outcome CHECK (
CASE
    WHEN (state = 'open') THEN (next_at IS NOT NULL)
    ELSE ((next_at IS NULL) OR ((state = 'answered') AND (outcome IS NULL)))
END),
    CONSTRAINT alert_case_ended_unless_open CHECK (((state = 'open') = (ended_at IS NULL))),
    CONSTRAINT alert_case_outcome_of_an_answer CHECK (((state = 'answered') OR (outcome IS NULL))),
    CONSTRAINT alert_case_owner_reminded CHECK (((state = 'answered') OR (NOT reminded))),
    CONSTRAINT alert_case_payload_is_an_object CHECK ((jsonb_typeof(payload) = 'object')),
    CONSTRAINT alert_case_state_known CHECK ((state = ANY (ARRAY['open', 'answered', 'unanswered', 'cancelled']))),
    CONSTRAINT alert_case_step_of_its_chain CHECK (((step >= 0) AND (step <= jsonb_array_length(chain)))),
    CONSTRAINT alert_case_pkey PRIMARY KEY (alert_id)
);
COMMENT ON COLUMN alert_case.chain IS 'a copy of the policy''s chain, with its repeats';
COMMENT ON COLUMN alert_case.generation IS 'a fencing token: it grows when the chain begins anew';
COMMENT ON COLUMN alert_case.step IS 'how many steps of this generation were handed out';
COMMENT ON COLUMN alert_case.next_at IS 'when the timer acts';
COMMENT ON COLUMN alert_case.reminded IS 'its owner, who gave no outcome in time';
COMMENT ON COLUMN alert_case.silence IS 'which has put it off';
COMMENT ON COLUMN alert_case.ended_at IS 'when it last stopped to be open';
COMMENT ON COLUMN alert_case.failures IS 'of its timer, one after another';
COMMENT ON COLUMN alert_case.told IS 'how many messages outside the chain its owner got: reminders, and that it was handed over';
COMMENT ON COLUMN alert_case.wished IS 'its owner asked to be reminded at next_at';
CREATE INDEX alert_case_dedup ON alert_case (dedup_key) WHERE (dedup_key IS NOT NULL);
CREATE INDEX alert_case_due ON alert_case (next_at) WHERE (next_at IS NOT NULL);
CREATE INDEX alert_case_silence ON alert_case (silence) WHERE (silence IS NOT NULL);
CREATE INDEX alert_case_state ON alert_case (state, opened_at);
CREATE INDEX alert_case_subjects ON alert_case USING gin (subjects) WHERE (subjects <> '{}'::bytea[]);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE alert_case TO alerts;

CREATE TABLE attempt (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    number integer NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    status integer,
    seconds real NOT NULL,
    excerpt text NOT NULL,
    ended_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT attempt_excerpt_bounded CHECK ((length(excerpt) <= 500)),
    CONSTRAINT attempt_outcome_known CHECK ((outcome = ANY (ARRAY['delivered', 'failed', 'never', 'later', 'held', 'unknown']))),
    CONSTRAINT attempt_pkey PRIMARY KEY (alert_id, target, number),
    CONSTRAINT attempt_alert_id_target_fkey FOREIGN KEY (alert_id, target) REFERENCES delivery(alert_id, target) ON DELETE CASCADE
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE attempt TO alerts;

CREATE TABLE breaker (
    target text NOT NULL,
    state text DEFAULT 'closed' NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    next_trial_at timestamptz,
    trial_by uuid,
    paused_until timestamptz,
    held text,
    healed_at timestamptz,
    CONSTRAINT breaker_open_until CHECK (((state = 'closed') = (next_trial_at IS NULL))),
    CONSTRAINT breaker_state_known CHECK ((state = ANY (ARRAY['closed', 'open', 'half_open']))),
    CONSTRAINT breaker_trial_whole CHECK (((state = 'half_open') = (trial_by IS NOT NULL))),
    CONSTRAINT breaker_pkey PRIMARY KEY (target)
);
COMMENT ON COLUMN breaker.next_trial_at IS 'half open: when its process counts as dead';
COMMENT ON COLUMN breaker.held IS 'what the target said when it refused us';
COMMENT ON COLUMN breaker.healed_at IS 'when it accepted an alert after it refused us';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE breaker TO alerts;

CREATE TABLE case_answer (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    case_id uuid NOT NULL,
    generation integer NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    person text NOT NULL,
    name text NOT NULL,
    via text NOT NULL,
    verb text NOT NULL,
    reason text,
    until timestamptz,
    key text NOT NULL,
    result jsonb NOT NULL,
    CONSTRAINT case_answer_reason_bounded CHECK ((length(reason) <= 500)),
    CONSTRAINT case_answer_via_known CHECK ((via = ANY (ARRAY['slack', 'link', 'api', 'cli', 'timer']))),
    CONSTRAINT case_answer_key UNIQUE (case_id, key),
    CONSTRAINT case_answer_pkey PRIMARY KEY (id),
    CONSTRAINT case_answer_case_id_fkey FOREIGN KEY (case_id) REFERENCES alert_case(alert_id) ON DELETE CASCADE
);
GRANT SELECT,INSERT ON TABLE case_answer TO alerts;
GRANT UPDATE(reason) ON TABLE case_answer TO alerts;

CREATE TABLE case_link (
    hash bytea NOT NULL,
    case_id uuid NOT NULL,
    person text NOT NULL,
    generation integer NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT case_link_pkey PRIMARY KEY (hash),
    CONSTRAINT case_link_case_id_fkey FOREIGN KEY (case_id) REFERENCES alert_case(alert_id) ON DELETE CASCADE
);
CREATE INDEX case_link_case ON case_link (case_id);
CREATE INDEX case_link_expires ON case_link (expires_at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE case_link TO alerts;

CREATE TABLE case_place (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    case_id uuid NOT NULL,
    receipt jsonb,
    want integer DEFAULT 0 NOT NULL,
    wanted_at timestamptz DEFAULT now() NOT NULL,
    shown integer,
    ordered integer DEFAULT 0 NOT NULL,
    update_id uuid,
    CONSTRAINT case_place_counts CHECK ((LEAST(want, shown, ordered) >= 0)),
    CONSTRAINT case_place_pkey PRIMARY KEY (alert_id, target),
    CONSTRAINT case_place_case_id_fkey FOREIGN KEY (case_id) REFERENCES alert_case(alert_id) ON DELETE CASCADE
);
COMMENT ON TABLE case_place IS 'where an alert or a step was shown';
COMMENT ON COLUMN case_place.want IS 'grows with each change that it has to show';
COMMENT ON COLUMN case_place.shown IS 'the value of want that it shows; NULL: not shown yet';
COMMENT ON COLUMN case_place.ordered IS 'the value of want for which the last update was ordered';
CREATE INDEX case_place_case ON case_place (case_id);
CREATE INDEX case_place_due ON case_place (wanted_at) WHERE ((want > COALESCE(shown, 0)) AND (want > ordered));
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE case_place TO alerts;

CREATE TABLE case_step (
    case_id uuid NOT NULL,
    generation integer NOT NULL,
    number integer NOT NULL,
    alert_id uuid NOT NULL,
    target text NOT NULL,
    person text,
    handed_out_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT case_step_alert UNIQUE (alert_id),
    CONSTRAINT case_step_pkey PRIMARY KEY (case_id, generation, number),
    CONSTRAINT case_step_case_id_fkey FOREIGN KEY (case_id) REFERENCES alert_case(alert_id) ON DELETE CASCADE
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE case_step TO alerts;

CREATE TABLE case_total (
    term text NOT NULL,
    count bigint DEFAULT 0 NOT NULL,
    CONSTRAINT case_total_term_known CHECK ((term = ANY (ARRAY['opened', 'answered', 'unanswered', 'cancelled']))),
    CONSTRAINT case_total_pkey PRIMARY KEY (term)
);
COMMENT ON TABLE case_total IS 'opened counts every case, the others purged ones only';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE case_total TO alerts;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE dead_letter_queue TO alerts;

CREATE TABLE delivery (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL,
    source text NOT NULL,
    payload jsonb,
    dedup_key text,
    request_id text,
    accepted_at timestamptz NOT NULL,
    once_address text,
    once_purpose text,
    once_reference text,
    created_at timestamptz DEFAULT now() NOT NULL,
    state text NOT NULL,
    reason text,
    error text,
    operator text,
    generation integer DEFAULT 0 NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    lease_until timestamptz,
    last_attempt_at timestamptz,
    finished_at timestamptz,
    duplicates integer DEFAULT 0 NOT NULL,
    requeued_at timestamptz,
    subjects bytea[] DEFAULT '{}'::bytea[] NOT NULL,
    once_not_after timestamptz,
    recalled boolean DEFAULT false NOT NULL,
    caller text,
    resolved boolean DEFAULT false NOT NULL,
    fired_at timestamptz,
    CONSTRAINT delivery_counts CHECK (((generation >= 0) AND (attempts >= 0) AND (attempt >= attempts))),
    CONSTRAINT delivery_ends_with_a_reason CHECK (((reason IS NOT NULL) OR (state = ANY (ARRAY['pending', 'claimed', 'sending'])))),
    CONSTRAINT delivery_finished_at_its_end CHECK (((state = ANY (ARRAY['delivered', 'failed', 'discarded', 'in_doubt'])) = (finished_at IS NOT NULL))),
    CONSTRAINT delivery_leased_while_owned CHECK (((state = ANY (ARRAY['claimed', 'sending'])) = (lease_until IS NOT NULL))),
    CONSTRAINT delivery_once_states CHECK (((once_address IS NOT NULL) OR (state <> ALL (ARRAY['claimed', 'in_doubt'])))),
    CONSTRAINT delivery_once_whole CHECK ((num_nonnulls(once_address, once_purpose, once_reference) = ANY (ARRAY[0, 3]))),
    CONSTRAINT delivery_payload_is_an_object CHECK ((jsonb_typeof(payload) = 'object')),
    CONSTRAINT delivery_payload_until_its_end CHECK (((payload IS NOT NULL) OR (state = ANY (ARRAY['delivered', 'failed', 'discarded', 'in_doubt'])))),
    CONSTRAINT delivery_recalled_in_flight CHECK (((NOT recalled) OR (state = 'sending'))),
    CONSTRAINT delivery_state_known CHECK ((state = ANY (ARRAY['pending', 'claimed', 'sending', 'delivered', 'failed', 'discarded', 'in_doubt']))),
    CONSTRAINT delivery_tried_before CHECK (((attempt > 0) OR (state = ANY (ARRAY['pending', 'failed', 'discarded'])))),
    CONSTRAINT delivery_pkey PRIMARY KEY (alert_id, target)
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_insert_scale_factor='0.02');
COMMENT ON COLUMN delivery.requeued_at IS 'when an operator last requeued it; its age counts from then';
COMMENT ON COLUMN delivery.subjects IS 'keyed hashes of the data subjects it names (subjects.py)';
COMMENT ON COLUMN delivery.once_not_after IS 'the end of its sending window';
COMMENT ON COLUMN delivery.recalled IS 'its case was answered while it was in flight: it is not tried again';
COMMENT ON COLUMN delivery.caller IS 'whose dedup_key it is; NULL: anyone''s of its source';
COMMENT ON COLUMN delivery.fired_at IS 'the acceptance of its last repeat';
CREATE INDEX dead_letter_queue_created ON delivery (created_at) WHERE ((error IS NOT NULL) AND (state <> ALL (ARRAY['discarded', 'in_doubt'])));
CREATE INDEX dead_letter_queue_status_created ON delivery (dead_letter_status(state), created_at) WHERE ((error IS NOT NULL) AND (state <> ALL (ARRAY['discarded', 'in_doubt'])));
CREATE INDEX delivery_abandoned ON delivery (lease_until) WHERE ((state = 'sending') AND (once_address IS NOT NULL));
CREATE INDEX delivery_critical ON delivery (target, created_at) WHERE ((state = 'pending') AND (severity = 'critical'));
CREATE INDEX delivery_critical_sent ON delivery (target) WHERE ((state = 'sending') AND (severity = 'critical'));
CREATE INDEX delivery_dedup ON delivery (dedup_key, target, accepted_at) WHERE (dedup_key IS NOT NULL);
CREATE INDEX delivery_delivered ON delivery (finished_at) WHERE (state = 'delivered');
CREATE INDEX delivery_due ON delivery (target, due_at) WHERE (state = ANY (ARRAY['pending', 'claimed', 'sending']));
CREATE INDEX delivery_kept ON delivery (state, created_at, alert_id, target, event_type) WHERE (state = ANY (ARRAY['failed', 'in_doubt', 'discarded']));
CREATE INDEX delivery_of_subscription ON delivery (target, created_at, alert_id) WHERE (target ~~ 'subscription.%');
CREATE INDEX delivery_open ON delivery (created_at, alert_id, target, event_type) WHERE (state = ANY (ARRAY['pending', 'claimed', 'sending']));
CREATE INDEX delivery_payload ON delivery (finished_at) WHERE ((state = ANY (ARRAY['failed', 'in_doubt', 'discarded'])) AND (payload IS NOT NULL));
CREATE INDEX delivery_recalled ON delivery (lease_until) WHERE recalled;
CREATE INDEX delivery_subjects ON delivery USING gin (subjects) WHERE (subjects <> '{}'::bytea[]);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE delivery TO alerts;

CREATE TABLE duplicate (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    first_id uuid NOT NULL,
    request_id text,
    accepted_at timestamptz NOT NULL,
    CONSTRAINT duplicate_of_another CHECK ((first_id <> alert_id)),
    CONSTRAINT duplicate_pkey PRIMARY KEY (alert_id, target),
    CONSTRAINT duplicate_first_id_target_fkey FOREIGN KEY (first_id, target) REFERENCES delivery(alert_id, target) ON DELETE CASCADE
);
COMMENT ON TABLE duplicate IS 'alerts counted on the first of their dedup_key instead of sent';
CREATE INDEX duplicate_first ON duplicate (first_id, target);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE duplicate TO alerts;

CREATE TABLE epoch (
    single boolean DEFAULT true NOT NULL,
    id uuid NOT NULL,
    CONSTRAINT epoch_single CHECK (single),
    CONSTRAINT epoch_pkey PRIMARY KEY (single)
);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE epoch TO alerts;

CREATE TABLE erased_subject (
    hash bytea NOT NULL,
    erased_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT erased_subject_pkey PRIMARY KEY (hash)
);
COMMENT ON TABLE erased_subject IS 'tombstones: alerts about them that were accepted earlier are stored empty';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE erased_subject TO alerts;

CREATE TABLE escalation (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    alert_id uuid NOT NULL,
    target text NOT NULL,
    event_type text NOT NULL,
    reason text NOT NULL,
    error text,
    created_at timestamptz DEFAULT now() NOT NULL,
    digest uuid,
    send_failed_at timestamptz,
    send_failures integer DEFAULT 0 NOT NULL,
    CONSTRAINT escalation_pkey PRIMARY KEY (id)
);
COMMENT ON COLUMN escalation.digest IS 'the alert whose mail reports it';
COMMENT ON COLUMN escalation.send_failed_at IS 'when the last mail that reported it failed';
COMMENT ON COLUMN escalation.send_failures IS 'how many such mails failed';
CREATE INDEX escalation_alert ON escalation (alert_id, target);
CREATE INDEX escalation_digest ON escalation (digest) WHERE (digest IS NOT NULL);
CREATE INDEX escalation_unsent ON escalation (target, created_at) WHERE (digest IS NULL);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE escalation TO alerts;

CREATE TABLE event (
    id uuid NOT NULL,
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    type text NOT NULL,
    data jsonb NOT NULL,
    subjects bytea[] DEFAULT '{}'::bytea[] NOT NULL,
    at timestamptz NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT event_number UNIQUE (number),
    CONSTRAINT event_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE event IS 'what happened in the last two weeks, for replays and for those who ask';
COMMENT ON COLUMN event.number IS 'in the order in which the transactions ended';
COMMENT ON COLUMN event.subjects IS 'keyed hashes of the data subjects it names (subjects.py)';
CREATE INDEX event_created ON event (created_at);
CREATE INDEX event_subjects ON event USING gin (subjects) WHERE (subjects <> '{}'::bytea[]);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE event TO alerts;

CREATE TABLE heartbeat (
    name text NOT NULL,
    next_at timestamptz NOT NULL,
    case_id uuid,
    CONSTRAINT heartbeat_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE heartbeat IS 'event types that are to come in time';
COMMENT ON COLUMN heartbeat.next_at IS 'when it is missed';
COMMENT ON COLUMN heartbeat.case_id IS 'the case that asks why it was missed';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE heartbeat TO alerts;

CREATE TABLE heartbeat_ping (
    id uuid NOT NULL,
    heartbeat uuid NOT NULL,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    code bigint,
    log text,
    CONSTRAINT heartbeat_ping_pkey PRIMARY KEY (id),
    CONSTRAINT heartbeat_ping_heartbeat_fkey FOREIGN KEY (heartbeat) REFERENCES heartbeat_watch(id) ON DELETE CASCADE
);
COMMENT ON TABLE heartbeat_ping IS 'the last pings of each, with what the job said';
CREATE INDEX heartbeat_ping_by_time ON heartbeat_ping (heartbeat, at);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE heartbeat_ping TO alerts;

CREATE TABLE heartbeat_watch (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    event_type text,
    every bigint,
    cron text,
    timezone text,
    grace bigint DEFAULT 0 NOT NULL,
    severity text DEFAULT 'warning' NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    signed_at timestamptz DEFAULT now() NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    next_at timestamptz,
    started_at timestamptz,
    last_at timestamptz,
    case_id uuid,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT heartbeat_watch_due_unless_paused CHECK (((next_at IS NULL) = paused)),
    CONSTRAINT heartbeat_watch_has_one_schedule CHECK ((num_nonnulls(event_type, every, cron) = 1)),
    CONSTRAINT heartbeat_watch_event_type UNIQUE (event_type),
    CONSTRAINT heartbeat_watch_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE heartbeat_watch IS 'jobs that are to ping, and event types that are to come, in time';
COMMENT ON COLUMN heartbeat_watch.event_type IS 'of the file, which has its schedule';
COMMENT ON COLUMN heartbeat_watch.every IS 'seconds, as grace';
COMMENT ON COLUMN heartbeat_watch.version IS 'of the ping URL: older ones count no more';
COMMENT ON COLUMN heartbeat_watch.next_at IS 'when it is missed';
COMMENT ON COLUMN heartbeat_watch.started_at IS 'the first start that has no end';
COMMENT ON COLUMN heartbeat_watch.last_at IS 'the last end, good or bad: what is older changes nothing';
COMMENT ON COLUMN heartbeat_watch.case_id IS 'the alert that says it is missed or failed; NULL: it is not';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE heartbeat_watch TO alerts;

CREATE TABLE incident (
    kind text NOT NULL,
    target text NOT NULL,
    since timestamptz DEFAULT now() NOT NULL,
    number bigint DEFAULT 0 NOT NULL,
    notified_at timestamptz,
    digest uuid,
    send_failed_at timestamptz,
    send_failures integer DEFAULT 0 NOT NULL,
    CONSTRAINT incident_kind_known CHECK ((kind = ANY (ARRAY['breaker', 'pending', 'in_doubt', 'unread', 'unanswered', 'rota']))),
    CONSTRAINT incident_pkey PRIMARY KEY (kind, target)
);
COMMENT ON TABLE incident IS 'open incidents; breaker: it opened, and nothing has been delivered since';
COMMENT ON COLUMN incident.digest IS 'the alert whose mail reported it';
COMMENT ON COLUMN incident.send_failed_at IS 'when the last mail that reported it failed';
COMMENT ON COLUMN incident.send_failures IS 'how many such mails failed in a row';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE incident TO alerts;

CREATE TABLE intake_sender (
    sender text NOT NULL,
    seen int8multirange NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    edge bigint DEFAULT 1 NOT NULL,
    edge_at timestamptz DEFAULT now() NOT NULL,
    missing int8multirange DEFAULT '{}'::int8multirange NOT NULL,
    missed_at timestamptz,
    CONSTRAINT intake_sender_pkey PRIMARY KEY (sender)
);
COMMENT ON TABLE intake_sender IS 'which running numbers of a gateway process came to intake';
COMMENT ON COLUMN intake_sender.edge IS 'above all numbers that were seen at edge_at';
COMMENT ON COLUMN intake_sender.missing IS 'gaps that stayed for long, in seen as well';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE intake_sender TO alerts;

CREATE TABLE ledger_check (
    single boolean DEFAULT true NOT NULL,
    at timestamptz DEFAULT '-infinity'::timestamptz NOT NULL,
    found jsonb,
    CONSTRAINT ledger_check_single CHECK (single),
    CONSTRAINT ledger_check_pkey PRIMARY KEY (single)
);
COMMENT ON TABLE ledger_check IS 'result of the last check, for the metrics of every replica';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ledger_check TO alerts;

CREATE TABLE ledger_total (
    target text NOT NULL,
    accepted bigint DEFAULT 0 NOT NULL,
    delivered bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    discarded bigint DEFAULT 0 NOT NULL,
    duplicates bigint DEFAULT 0 NOT NULL,
    purged_until timestamptz,
    CONSTRAINT ledger_total_purged_no_more_than_accepted CHECK (((LEAST(delivered, failed, discarded) >= 0) AND (((delivered + failed) + discarded) <= accepted))),
    CONSTRAINT ledger_total_pkey PRIMARY KEY (target)
);
COMMENT ON TABLE ledger_total IS 'accepted counts every row ever written, duplicates the alerts without a row of their own; the others count purged rows only';
COMMENT ON COLUMN ledger_total.purged_until IS 'rows that ended by then may be purged; a younger message without its row is a fault';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE ledger_total TO alerts;

CREATE TABLE oncall_override (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    schedule text NOT NULL,
    begins timestamptz NOT NULL,
    ends timestamptz NOT NULL,
    person text NOT NULL,
    by text NOT NULL,
    why text,
    CONSTRAINT oncall_override_ends_after_it_begins CHECK ((begins < ends)),
    CONSTRAINT oncall_override_pkey PRIMARY KEY (id)
);
CREATE INDEX oncall_override_ends ON oncall_override (ends);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE oncall_override TO alerts;

CREATE TABLE outbox (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    message_id text NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    type text NOT NULL,
    body jsonb NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz DEFAULT now() NOT NULL,
    due_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT outbox_pkey PRIMARY KEY (id)
);
CREATE INDEX outbox_due ON outbox (due_at, id);
CREATE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox TO alerts;

CREATE TABLE quiet_hours (
    person text NOT NULL,
    weekly jsonb NOT NULL,
    critical boolean NOT NULL,
    by text NOT NULL,
    at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT quiet_hours_pkey PRIMARY KEY (person)
);
COMMENT ON TABLE quiet_hours IS 'when a person of [people] is asked after others';
COMMENT ON COLUMN quiet_hours.weekly IS 'days (1 is Monday), begins, ends and zone';
COMMENT ON COLUMN quiet_hours.critical IS 'also of critical alerts';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE quiet_hours TO alerts;

CREATE TABLE replica (
    process uuid NOT NULL,
    seen_at timestamptz DEFAULT now() NOT NULL,
    numbers boolean DEFAULT false NOT NULL,
    together boolean DEFAULT false NOT NULL,
    CONSTRAINT replica_pkey PRIMARY KEY (process)
);
COMMENT ON COLUMN replica.numbers IS 'it notes them; a release that does not makes gaps';
COMMENT ON COLUMN replica.together IS 'it reads several works in one message; a release before does not';
CREATE TRIGGER replica_kept BEFORE DELETE ON replica FOR EACH ROW WHEN (((NOT old.numbers) AND (old.seen_at > (now() - '01:00:00'::interval)))) EXECUTE FUNCTION replica_kept();
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE replica TO alerts;

CREATE TABLE silence (
    id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    event_type text NOT NULL,
    severity text,
    source text,
    dedup_key text,
    begins timestamptz DEFAULT now() NOT NULL,
    ends timestamptz NOT NULL,
    by text NOT NULL,
    why text NOT NULL,
    matchers text[],
    critical boolean DEFAULT true NOT NULL,
    weekly jsonb,
    CONSTRAINT silence_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE silence IS 'alerts that fit all its matchers wait';
COMMENT ON COLUMN silence.event_type IS 'empty beside matchers, of which the release before would apply only some';
COMMENT ON COLUMN silence.matchers IS 'NULL: of the release before, and the four columns are the matchers; NULL there matches any';
COMMENT ON COLUMN silence.critical IS 'it covers critical alerts, too';
COMMENT ON COLUMN silence.weekly IS 'its days (1 is Monday), begins, ends and zone; NULL: it runs all the time';
CREATE INDEX silence_ends ON silence (ends);
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE silence TO alerts;

CREATE TABLE subscription (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    description text NOT NULL,
    owner_email text NOT NULL,
    personal_data boolean NOT NULL,
    made_by text NOT NULL,
    paused text,
    told bigint DEFAULT 0 NOT NULL,
    replay jsonb,
    created_at timestamptz DEFAULT now() NOT NULL,
    CONSTRAINT subscription_pause_known CHECK ((paused = ANY (ARRAY['asked', 'failing', 'gone', 'key_revoked', 'restored']))),
    CONSTRAINT subscription_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE subscription IS 'a target whose definition is a row: subscription.<id>';
COMMENT ON COLUMN subscription.made_by IS 'who made it; key:<id> if by an API key, with which it stops';
COMMENT ON COLUMN subscription.paused IS 'why it gets nothing; gone: its receiver answered 410';
COMMENT ON COLUMN subscription.told IS 'for how many days of failures its owner was warned; 5: that it is paused';
COMMENT ON COLUMN subscription.replay IS 'what is still to be sent again';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE subscription TO alerts;

CREATE TABLE subscription_secret (
    subscription uuid NOT NULL,
    secret text NOT NULL,
    made_at timestamptz DEFAULT now() NOT NULL,
    ends_at timestamptz,
    CONSTRAINT subscription_secret_pkey PRIMARY KEY (subscription, secret),
    CONSTRAINT subscription_secret_subscription_fkey FOREIGN KEY (subscription) REFERENCES subscription(id) ON DELETE CASCADE
);
COMMENT ON COLUMN subscription_secret.ends_at IS 'NULL: it is the newest';
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE subscription_secret TO alerts;
