-- From which address a key was used.
ALTER TABLE staff_action ADD COLUMN client_address text;
