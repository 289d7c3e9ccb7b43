-- People disabled for a year are erased; the record keeps a number in place of their name.
-- As 0001 says of deletions: of an act that is a year old one thing may change, its person's name.
DROP TRIGGER staff_action_refuse ON staff_action;
CREATE TRIGGER staff_action_refuse BEFORE TRUNCATE ON staff_action
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();
CREATE TRIGGER staff_action_as_it_was BEFORE UPDATE ON staff_action
    FOR EACH ROW WHEN (
        OLD.at > now() - interval '1 year' OR OLD.actor_kind <> 'staff'
        OR NEW.actor_name IS DISTINCT FROM '#' || left(OLD.actor_id, 8)
        OR to_jsonb(NEW) - 'actor_name' IS DISTINCT FROM to_jsonb(OLD) - 'actor_name'
    ) EXECUTE FUNCTION append_only();
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_refuse;
ALTER TABLE staff_action ENABLE ALWAYS TRIGGER staff_action_as_it_was;

-- The row stays: the record, and what the person did with many alerts, refer to it.
CREATE FUNCTION staff_erase() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = console, pg_temp AS $$
    WITH gone AS (
        UPDATE staff SET email = id::text, name = '#' || left(id::text, 8)
        WHERE disabled_at < now() - interval '1 year' AND email <> id::text
        RETURNING id, id::text AS number, name
    ), acts AS (
        UPDATE staff_action SET actor_name = gone.name FROM gone
        WHERE actor_kind = 'staff' AND actor_id = number
    ), made AS (
        UPDATE api_key SET created_by = 'staff:' || number || ' ' || gone.name FROM gone
        WHERE starts_with(created_by, 'staff:' || number)
    ), sessions AS (
        DELETE FROM staff_session USING gone WHERE staff_id = gone.id
    ) SELECT count(*) FROM gone
$$;
REVOKE ALL ON FUNCTION staff_erase FROM PUBLIC;
GRANT EXECUTE ON FUNCTION staff_erase TO console;
