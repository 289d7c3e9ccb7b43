-- name: tables
SELECT relname FROM pg_class
WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'v')
    AND relname <> 'alembic_version'
ORDER BY relname

-- name: indexes
SELECT indexname FROM pg_indexes
WHERE schemaname = current_schema() AND starts_with(indexname, :relation) ORDER BY indexname
