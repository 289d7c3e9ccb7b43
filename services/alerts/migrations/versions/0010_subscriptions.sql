-- Subscriptions of other programs to what happens here, and the events that are kept for them.
CREATE TABLE subscription (
    id uuid CONSTRAINT subscription_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    url text NOT NULL,
    events text[] NOT NULL,
    description text NOT NULL,
    owner_email text NOT NULL,
    personal_data boolean NOT NULL,
    made_by text NOT NULL,
    paused text,
    told bigint NOT NULL DEFAULT 0,
    replay jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscription_pause_known
        CHECK (paused IN ('asked', 'failing', 'gone', 'key_revoked', 'restored'))
);
COMMENT ON TABLE subscription IS 'a target whose definition is a row: subscription.<id>';
COMMENT ON COLUMN subscription.made_by IS 'who made it; key:<id> if by an API key, with which it stops';
COMMENT ON COLUMN subscription.paused IS 'why it gets nothing; gone: its receiver answered 410';
COMMENT ON COLUMN subscription.told IS 'for how many days of failures its owner was warned; 5: that it is paused';
COMMENT ON COLUMN subscription.replay IS 'what is still to be sent again';
CREATE TABLE subscription_secret (
    subscription uuid NOT NULL CONSTRAINT subscription_secret_subscription_fkey
        REFERENCES subscription ON DELETE CASCADE,
    secret text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    ends_at timestamptz,
    CONSTRAINT subscription_secret_pkey PRIMARY KEY (subscription, secret)
);
COMMENT ON COLUMN subscription_secret.ends_at IS 'NULL: it is the newest';
CREATE TABLE event (
    id uuid CONSTRAINT event_pkey PRIMARY KEY,
    number bigint NOT NULL GENERATED ALWAYS AS IDENTITY CONSTRAINT event_number UNIQUE,
    type text NOT NULL,
    data jsonb NOT NULL,
    subjects bytea[] NOT NULL DEFAULT '{}',
    at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE event IS 'what happened in the last two weeks, for replays and for those who ask';
COMMENT ON COLUMN event.number IS 'in the order in which the transactions ended';
COMMENT ON COLUMN event.subjects IS 'keyed hashes of the data subjects it names (subjects.py)';
CREATE INDEX event_created ON event (created_at);
CREATE INDEX event_subjects ON event USING gin (subjects) WHERE (subjects <> '{}');

CREATE INDEX CONCURRENTLY delivery_of_subscription
    ON delivery (target, created_at, alert_id) WHERE target LIKE 'subscription.%';
