-- What owners of cases ask for: to be reminded, and to hand over.
ALTER TABLE alert_case
    ADD COLUMN told integer NOT NULL DEFAULT 0,
    ADD COLUMN wished boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN alert_case.told IS
    'how many messages outside the chain its owner got: reminders, and that it was handed over';
COMMENT ON COLUMN alert_case.wished IS 'its owner asked to be reminded at next_at';
