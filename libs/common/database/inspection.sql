-- name: server
SELECT extract(epoch FROM clock_timestamp()), pg_is_in_recovery();

-- name: rights
-- Whether the role has privileges, the other schemas that it may use, the tables that it owns.
SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls,
    ARRAY(SELECT nspname::text FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public', rolname)
        AND has_schema_privilege(oid, 'USAGE')),
    ARRAY(SELECT relname::text FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = rolname AND relowner = r.oid)
FROM pg_roles r WHERE rolname = current_user;
