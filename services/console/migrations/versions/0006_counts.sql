-- How many rows an act of another service changed.
ALTER TABLE staff_action ADD COLUMN count bigint;
