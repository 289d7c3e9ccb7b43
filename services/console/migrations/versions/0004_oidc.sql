-- People who log in at an identity provider.
-- The table has a row for each person: it is checked and indexed at once. The release before reads
-- rows of the kind `password` only, and those are as they were.
ALTER TABLE staff_credential ADD COLUMN issuer text, ADD COLUMN subject text;
-- squawk-ignore ban-drop-not-null
ALTER TABLE staff_credential ALTER COLUMN hash DROP NOT NULL;
-- squawk-ignore ban-drop-constraint
ALTER TABLE staff_credential DROP CONSTRAINT staff_credential_kind_known;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE staff_credential ADD CONSTRAINT staff_credential_kind_known CHECK (
    CASE kind WHEN 'password' THEN hash IS NOT NULL AND issuer IS NULL AND subject IS NULL
        WHEN 'oidc' THEN hash IS NULL AND issuer IS NOT NULL AND subject IS NOT NULL
        ELSE false END);
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX staff_credential_identity ON staff_credential (issuer, subject);

-- What somebody enters with replaces what they entered with before.
GRANT DELETE ON staff_credential TO console;
