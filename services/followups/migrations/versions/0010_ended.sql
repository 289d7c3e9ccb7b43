-- The sums of two weeks find what was won and lost by its time. lead_won, of what was won alone,
-- is not read any more.
CREATE INDEX CONCURRENTLY lead_ended ON lead (state_at) WHERE state IN ('won', 'lost');
