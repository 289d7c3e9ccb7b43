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
