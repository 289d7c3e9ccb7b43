-- The running numbers of the alerts that each gateway process sent to intake.
CREATE TABLE intake_sender (
    sender text PRIMARY KEY,
    seen int8multirange NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    edge bigint NOT NULL DEFAULT 1,
    edge_at timestamptz NOT NULL DEFAULT now(),
    missing int8multirange NOT NULL DEFAULT '{}',
    missed_at timestamptz
);
COMMENT ON TABLE intake_sender IS 'which running numbers of a gateway process came to intake';
COMMENT ON COLUMN intake_sender.edge IS 'above all numbers that were seen at edge_at';
COMMENT ON COLUMN intake_sender.missing IS 'gaps that stayed for long, in seen as well';

ALTER TABLE replica ADD COLUMN numbers boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN replica.numbers IS 'it notes them; a release that does not makes gaps';
CREATE FUNCTION replica_kept() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER replica_kept BEFORE DELETE ON replica FOR EACH ROW
    WHEN (NOT OLD.numbers AND OLD.seen_at > now() - interval '1 hour')
    EXECUTE FUNCTION replica_kept();
