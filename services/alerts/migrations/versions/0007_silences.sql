-- Silences of any alert: matchers, critical ones, and those that come back each week.
ALTER TABLE silence
    ADD COLUMN matchers text[],
    ADD COLUMN critical boolean NOT NULL DEFAULT true,
    ADD COLUMN weekly jsonb;
COMMENT ON TABLE silence IS 'alerts that fit all its matchers wait';
COMMENT ON COLUMN silence.event_type IS
    'empty beside matchers, of which the release before would apply only some';
COMMENT ON COLUMN silence.matchers IS
    'NULL: of the release before, and the four columns are the matchers; NULL there matches any';
COMMENT ON COLUMN silence.critical IS 'it covers critical alerts, too';
COMMENT ON COLUMN silence.weekly IS
    'its days (1 is Monday), begins, ends and zone; NULL: it runs all the time';
