-- name: open
-- The open requests by topic and state, and those of one person (`names`: as releases wrote it).
SELECT topic, state, count(*) AS requests, min(state_at) AS oldest,
    count(*) FILTER (WHERE owner = ANY(:names)) AS mine
FROM lead WHERE state IN ('new', 'taken') GROUP BY topic, state;

-- name: calls
-- The calls that a person has planned until then.
SELECT count(*) FROM lead WHERE call_at < :until AND state = 'taken' AND owner = ANY(:names);

-- name: by_time
-- Leads since `since`: by day, and (without `day`) those of the last seven days and of those before.
-- `due`: those that were answered, or waited for an hour. Of leads that releases before 0007
-- answered, the state's time is the answer's.
SELECT day, is_last, count(*) AS leads, count(took) AS answered,
    count(*) FILTER (WHERE took IS NOT NULL
        OR state = 'new' AND created_at < now() - interval '1 hour') AS due,
    count(*) FILTER (WHERE took <= interval '1 hour') AS within_hour,
    extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY took)) AS median
FROM (
    SELECT CAST(created_at AT TIME ZONE :zone AS date) AS day, created_at >= :last AS is_last, state,
        created_at, coalesce(answered_at,
            CASE WHEN state <> 'new' AND state_by <> 'chat' THEN state_at END) - created_at AS took
    FROM lead WHERE topic = 'lead' AND created_at >= :since
) AS came GROUP BY GROUPING SETS ((day), (is_last));

-- name: won
SELECT day, is_last, count(*) AS won FROM (
    SELECT CAST(state_at AT TIME ZONE :zone AS date) AS day, state_at >= :last AS is_last
    FROM lead WHERE state = 'won' AND topic = 'lead' AND state_at >= :since
) AS ended GROUP BY GROUPING SETS ((day), (is_last));
