-- Mails to people, their second factors, and what gateways store about people for a restore.
ALTER TABLE staff
    ADD COLUMN proof_at timestamptz, ADD COLUMN factor bytea, ADD COLUMN factor_step bigint,
    ADD COLUMN recovery bytea[];
ALTER TABLE key_restore ADD COLUMN people jsonb;

\ir ../../../../libs/common/messaging/outbox_table.sql
