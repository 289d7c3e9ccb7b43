-- Heartbeats of jobs, by a ping URL, in one table with those of event types.
-- Not more columns of `heartbeat`: the release before deletes each row there that its file does not name.
CREATE TABLE heartbeat_watch (
    id uuid CONSTRAINT heartbeat_watch_pkey PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    event_type text CONSTRAINT heartbeat_watch_event_type UNIQUE,
    every bigint,
    cron text,
    timezone text,
    grace bigint NOT NULL DEFAULT 0,
    severity text NOT NULL DEFAULT 'warning',
    version bigint NOT NULL DEFAULT 0,
    signed_at timestamptz NOT NULL DEFAULT now(),
    paused boolean NOT NULL DEFAULT false,
    next_at timestamptz,
    started_at timestamptz,
    last_at timestamptz,
    case_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT heartbeat_watch_has_one_schedule CHECK (num_nonnulls(event_type, every, cron) = 1),
    CONSTRAINT heartbeat_watch_due_unless_paused CHECK ((next_at IS NULL) = paused)
);
COMMENT ON TABLE heartbeat_watch IS 'jobs that are to ping, and event types that are to come, in time';
COMMENT ON COLUMN heartbeat_watch.event_type IS 'of the file, which has its schedule';
COMMENT ON COLUMN heartbeat_watch.every IS 'seconds, as grace';
COMMENT ON COLUMN heartbeat_watch.version IS 'of the ping URL: older ones count no more';
COMMENT ON COLUMN heartbeat_watch.next_at IS 'when it is missed';
COMMENT ON COLUMN heartbeat_watch.started_at IS 'the first start that has no end';
COMMENT ON COLUMN heartbeat_watch.last_at IS 'the last end, good or bad: what is older changes nothing';
COMMENT ON COLUMN heartbeat_watch.case_id IS 'the alert that says it is missed or failed; NULL: it is not';
CREATE TABLE heartbeat_ping (
    id uuid CONSTRAINT heartbeat_ping_pkey PRIMARY KEY,
    heartbeat uuid NOT NULL CONSTRAINT heartbeat_ping_heartbeat_fkey
        REFERENCES heartbeat_watch ON DELETE CASCADE,
    at timestamptz NOT NULL,
    kind text NOT NULL,
    code bigint,
    log text
);
COMMENT ON TABLE heartbeat_ping IS 'the last pings of each, with what the job said';
CREATE INDEX heartbeat_ping_by_time ON heartbeat_ping (heartbeat, at);
INSERT INTO heartbeat_watch (name, event_type, next_at, case_id)
    SELECT name, name, next_at, case_id FROM heartbeat;
DELETE FROM heartbeat;
