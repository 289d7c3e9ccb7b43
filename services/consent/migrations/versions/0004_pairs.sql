-- Consent by purpose and channel: permits name theirs; pauses and caps; withdrawals of all.
ALTER TABLE permit ADD COLUMN purpose text;
-- Each purpose has its own share. No code reads a kind that it did not write.
-- squawk-ignore ban-drop-constraint
ALTER TABLE link_mail DROP CONSTRAINT link_mail_kind_known;

CREATE TABLE preference (
    subject_id uuid REFERENCES data_subject,
    purpose text,
    paused_until timestamptz,
    days integer,
    last_message uuid,
    last_at timestamptz,
    PRIMARY KEY (subject_id, purpose)
);
COMMENT ON COLUMN preference.days IS 'at most one mail within them';

-- The release before withdraws `marketing` where it means all. It runs beside this one during an
-- upgrade, and again after one that was undone: its withdrawals must reach what it does not know.
CREATE FUNCTION withdrawal_of_all() RETURNS trigger LANGUAGE plpgsql
SET search_path TO 'consent', 'pg_temp' AS $$
BEGIN
    INSERT INTO consent_state AS mine (subject_id, purpose, state, changed_at, withdrawn_at)
    VALUES (NEW.subject_id, '*', 'withdrawn', NEW.changed_at, NEW.withdrawn_at)
    ON CONFLICT (subject_id, purpose) DO UPDATE
    SET withdrawn_at = greatest(mine.withdrawn_at, excluded.withdrawn_at);
    UPDATE consent_state
    SET state = 'withdrawn', version = version + 1, changed_at = clock_timestamp(),
        withdrawn_at = NEW.withdrawn_at
    WHERE subject_id = NEW.subject_id AND state = 'granted' AND purpose <> 'marketing'
        AND changed_at <= NEW.withdrawn_at;
    RETURN NULL;
END
$$;
CREATE TRIGGER withdrawal_of_all AFTER INSERT OR UPDATE ON consent_state FOR EACH ROW
WHEN (
    NEW.purpose = 'marketing' AND NEW.state = 'withdrawn'
    AND current_setting('consent.pairs', TRUE) IS DISTINCT FROM 'on'
)
EXECUTE FUNCTION withdrawal_of_all();
