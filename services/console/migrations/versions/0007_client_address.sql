ALTER TABLE staff_action ADD COLUMN client_address text;
