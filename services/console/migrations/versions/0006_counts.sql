ALTER TABLE staff_action ADD COLUMN count bigint;
