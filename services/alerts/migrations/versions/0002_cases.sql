-- Cases: alerts that want an answer, their steps, answers, places and links; on-call overrides.
CREATE TABLE alert_case (
    alert_id uuid PRIMARY KEY,
    event_type text NOT NULL,
    severity text NOT NULL,
    source text NOT NULL,
    dedup_key text,
    request_id text,
    payload jsonb,
    subjects bytea[] NOT NULL DEFAULT '{}',
    accepted_at timestamptz NOT NULL,
    chain jsonb NOT NULL,
    hours text NOT NULL,
    state text NOT NULL DEFAULT 'open',
    reason text,
    outcome text,
    owner text,
    owner_name text,
    late boolean NOT NULL DEFAULT false,
    generation integer NOT NULL DEFAULT 0,
    step integer NOT NULL DEFAULT 0,
    version integer NOT NULL DEFAULT 0,
    next_at timestamptz,
    reminded boolean NOT NULL DEFAULT false,
    laters integer NOT NULL DEFAULT 0,
    silence bigint,
    opened_at timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz,
    ended_at timestamptz,
    CONSTRAINT alert_case_state_known CHECK (
        state IN ('open', 'answered', 'unanswered', 'cancelled')),
    CONSTRAINT alert_case_due_while_open_or_without_outcome CHECK (
        CASE WHEN state = 'open' THEN next_at IS NOT NULL
            ELSE next_at IS NULL OR (state = 'answered' AND outcome IS NULL) END),
    CONSTRAINT alert_case_owner_reminded CHECK (state = 'answered' OR NOT reminded),
    CONSTRAINT alert_case_ended_unless_open CHECK ((state = 'open') = (ended_at IS NULL)),
    CONSTRAINT alert_case_answered_by_its_owner CHECK (
        (state = 'answered') = (owner IS NOT NULL)
        AND num_nonnulls(owner, owner_name, answered_at) IN (0, 3)),
    CONSTRAINT alert_case_cancelled_with_a_reason CHECK (
        (state = 'cancelled') = (reason IS NOT NULL)),
    CONSTRAINT alert_case_outcome_of_an_answer CHECK (state = 'answered' OR outcome IS NULL),
    CONSTRAINT alert_case_step_of_its_chain CHECK (step BETWEEN 0 AND jsonb_array_length(chain)),
    CONSTRAINT alert_case_payload_is_an_object CHECK (jsonb_typeof(payload) = 'object')
);
COMMENT ON COLUMN alert_case.chain IS 'a copy of the policy''s chain, with its repeats';
COMMENT ON COLUMN alert_case.generation IS 'a fencing token: it grows when the chain begins anew';
COMMENT ON COLUMN alert_case.step IS 'how many steps of this generation were handed out';
COMMENT ON COLUMN alert_case.next_at IS 'when the timer acts';
COMMENT ON COLUMN alert_case.silence IS 'which has put it off';
COMMENT ON COLUMN alert_case.reminded IS 'its owner, who gave no outcome in time';
COMMENT ON COLUMN alert_case.ended_at IS 'when it last stopped to be open';
CREATE INDEX alert_case_due ON alert_case (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX alert_case_state ON alert_case (state, opened_at);
CREATE INDEX alert_case_dedup ON alert_case (dedup_key) WHERE dedup_key IS NOT NULL;
CREATE INDEX alert_case_subjects ON alert_case USING gin (subjects) WHERE subjects <> '{}';

CREATE TABLE case_step (
    case_id uuid NOT NULL REFERENCES alert_case ON DELETE CASCADE,
    generation integer NOT NULL,
    number integer NOT NULL,
    alert_id uuid NOT NULL,
    target text NOT NULL,
    person text,
    handed_out_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (case_id, generation, number),
    CONSTRAINT case_step_alert UNIQUE (alert_id)
);

CREATE TABLE case_answer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id uuid NOT NULL REFERENCES alert_case ON DELETE CASCADE,
    generation integer NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    person text NOT NULL,
    name text NOT NULL,
    via text NOT NULL,
    verb text NOT NULL,
    reason text,
    until timestamptz,
    key text NOT NULL,
    result jsonb NOT NULL,
    CONSTRAINT case_answer_key UNIQUE (case_id, key),
    CONSTRAINT case_answer_via_known CHECK (via IN ('slack', 'link', 'api', 'cli', 'timer')),
    CONSTRAINT case_answer_reason_bounded CHECK (length(reason) <= 500)
);

CREATE TABLE case_place (
    alert_id uuid NOT NULL,
    target text NOT NULL,
    case_id uuid NOT NULL REFERENCES alert_case ON DELETE CASCADE,
    receipt jsonb,
    want integer NOT NULL DEFAULT 0,
    wanted_at timestamptz NOT NULL DEFAULT now(),
    shown integer,
    ordered integer NOT NULL DEFAULT 0,
    update_id uuid,
    PRIMARY KEY (alert_id, target),
    CONSTRAINT case_place_counts CHECK (least(want, shown, ordered) >= 0)
);
COMMENT ON TABLE case_place IS 'where an alert or a step was shown';
COMMENT ON COLUMN case_place.want IS 'grows with each change that it has to show';
COMMENT ON COLUMN case_place.shown IS 'the value of want that it shows; NULL: not shown yet';
COMMENT ON COLUMN case_place.ordered IS 'the value of want for which the last update was ordered';
CREATE INDEX case_place_case ON case_place (case_id);
CREATE INDEX case_place_due ON case_place (wanted_at)
    WHERE want > coalesce(shown, 0) AND want > ordered;

CREATE TABLE case_link (
    hash bytea PRIMARY KEY,
    case_id uuid NOT NULL REFERENCES alert_case ON DELETE CASCADE,
    person text NOT NULL,
    generation integer NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX case_link_case ON case_link (case_id);
CREATE INDEX case_link_expires ON case_link (expires_at);

CREATE TABLE case_total (
    term text PRIMARY KEY,
    count bigint NOT NULL DEFAULT 0,
    CONSTRAINT case_total_term_known CHECK (
        term IN ('opened', 'answered', 'unanswered', 'cancelled'))
);
COMMENT ON TABLE case_total IS 'opened counts every case, the others purged ones only';
INSERT INTO case_total (term) VALUES ('opened'), ('answered'), ('unanswered'), ('cancelled');

CREATE TABLE oncall_override (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule text NOT NULL,
    begins timestamptz NOT NULL,
    ends timestamptz NOT NULL,
    person text NOT NULL,
    by text NOT NULL,
    why text,
    CONSTRAINT oncall_override_ends_after_it_begins CHECK (begins < ends)
);
CREATE INDEX oncall_override_ends ON oncall_override (ends);

CREATE TABLE silence (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_type text NOT NULL,
    severity text,
    source text,
    dedup_key text,
    begins timestamptz NOT NULL DEFAULT now(),
    ends timestamptz NOT NULL,
    by text NOT NULL,
    why text NOT NULL
);
COMMENT ON TABLE silence IS 'alerts with these values wait; NULL matches any';
CREATE INDEX silence_ends ON silence (ends);
CREATE INDEX alert_case_silence ON alert_case (silence) WHERE silence IS NOT NULL;

CREATE TABLE heartbeat (
    name text PRIMARY KEY,
    next_at timestamptz NOT NULL,
    case_id uuid
);
COMMENT ON TABLE heartbeat IS 'event types that are to come in time';
COMMENT ON COLUMN heartbeat.next_at IS 'when it is missed';
COMMENT ON COLUMN heartbeat.case_id IS 'the case that asks why it was missed';

ALTER TABLE delivery ADD COLUMN recalled boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN delivery.recalled IS
    'its case was answered while it was in flight: it is not tried again';
ALTER TABLE delivery ADD CONSTRAINT delivery_recalled_in_flight
    CHECK (NOT recalled OR state = 'sending');
CREATE INDEX delivery_recalled ON delivery (lease_until) WHERE recalled;

ALTER TABLE incident DROP CONSTRAINT incident_kind_known;
ALTER TABLE incident ADD CONSTRAINT incident_kind_known
    CHECK (kind IN ('breaker', 'pending', 'in_doubt', 'unread', 'unanswered', 'rota'));

REVOKE UPDATE, DELETE ON case_answer FROM alerts;
GRANT UPDATE (reason) ON case_answer TO alerts;
