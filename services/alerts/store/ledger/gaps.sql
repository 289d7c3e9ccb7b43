-- fragment: kept
interval '7 days'

-- name: note
-- A release that notes no numbers took some of them while it ran, and has a row for an hour after.
INSERT INTO intake_sender AS known (sender, seen)
SELECT sender, range_agg(int8range(
    CASE WHEN EXISTS (SELECT FROM replica WHERE NOT numbers) THEN 1 ELSE first END, last, '[]'))
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(
    sender text, first bigint, last bigint, at timestamptz)
WHERE first <= last AND r.at > now() - {kept} GROUP BY sender ORDER BY sender
ON CONFLICT (sender) DO UPDATE SET at = now(),
    seen = known.seen + excluded.seen, missing = known.missing - excluded.seen

-- name: judge
WITH due AS (
    SELECT sender, int8multirange(int8range(1, edge)) - seen AS late FROM intake_sender
    WHERE edge_at < now() - make_interval(secs => :seconds) ORDER BY sender FOR UPDATE
)
UPDATE intake_sender AS known SET seen = seen + late, edge = upper(seen), edge_at = now(),
    missing = CASE WHEN isempty(late) AND missed_at < now() - {kept} THEN '{}'
        ELSE missing + late END,
    missed_at = CASE WHEN isempty(late) THEN missed_at ELSE now() END
FROM due WHERE due.sender = known.sender

-- name: forget
DELETE FROM intake_sender WHERE at < now() - 2 * {kept}

-- name: gaps
SELECT sender, missed_at, (SELECT sum(upper(r) - lower(r)) FROM unnest(missing) AS r) AS lost,
    (SELECT jsonb_agg(jsonb_build_array(lower(r), upper(r) - 1))
        FROM (SELECT r FROM unnest(missing) AS r LIMIT 20) AS first) AS found
FROM intake_sender WHERE NOT isempty(missing) ORDER BY missed_at
