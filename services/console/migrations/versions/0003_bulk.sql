-- Retries and discards of many alerts.
CREATE TABLE bulk_action (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    staff_id uuid NOT NULL REFERENCES staff,
    verb text NOT NULL CONSTRAINT bulk_action_verb_known CHECK (verb IN ('retry', 'discard')),
    filter jsonb NOT NULL,
    reason text NOT NULL,
    expected integer NOT NULL,
    done integer NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'running' CONSTRAINT bulk_action_state_known
        CHECK (state IN ('running', 'done', 'stopped', 'refused')),
    lease_until timestamptz,
    ended_at timestamptz,
    CONSTRAINT bulk_action_ended CHECK ((state = 'running') = (ended_at IS NULL))
);
CREATE INDEX bulk_action_running ON bulk_action (at) WHERE state = 'running';

REVOKE DELETE ON bulk_action FROM console;
