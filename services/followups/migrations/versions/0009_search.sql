-- Leads are found by words: of their facts, and of what the person said.
ALTER TABLE lead ADD COLUMN IF NOT EXISTS heard text NOT NULL DEFAULT '';

COMMENT ON COLUMN lead.heard IS 'the person''s words that staff were told, for the search';

-- As followups folds what is searched for. Only immutable functions, so that it can be inlined.
CREATE OR REPLACE FUNCTION lead_words(known jsonb, heard text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
SELECT translate(lower(coalesce(known ->> 'name', '') || ' ' || coalesce(known ->> 'phone', '')
    || ' ' || coalesce(known ->> 'email', '') || ' ' || coalesce(known ->> 'city', '') || ' '
    || coalesce(known ->> 'wish', '') || ' ' || heard), 'ąćęłńóśźżäöüß', 'acelnoszzaous')
$$;

UPDATE lead SET heard = (
    SELECT coalesce(right(string_agg(body, ' ' ORDER BY id), 4000), '')
    FROM chat_message WHERE conversation_id = lead.conversation_id AND author = 'lead'
) WHERE heard = '';

-- gin_trgm_ops is of pg_trgm, which `setup` puts into this schema: its owner may not.
CREATE INDEX CONCURRENTLY lead_words ON lead USING gin (lead_words(known, heard) gin_trgm_ops);
