-- Handed-over follow-ups and those in doubt, which the console lists in their order.
CREATE INDEX CONCURRENTLY followup_event_unsettled
    ON followup_event (status, due_at, id) WHERE status IN ('handed_over', 'in_doubt');
