-- name: current
-- Those that are not over.
SELECT {columns} FROM oncall_override WHERE ends > now() ORDER BY begins

-- name: alone
-- So that of two that overlap the second sees the first.
LOCK TABLE oncall_override IN SHARE ROW EXCLUSIVE MODE

-- name: add
INSERT INTO oncall_override (schedule, begins, ends, person, by, why)
SELECT :schedule, :begins, :ends, :person, :by, :why
WHERE NOT EXISTS (SELECT FROM oncall_override
    WHERE schedule = :schedule AND begins < :ends AND ends > :begins)
RETURNING id

-- name: remove
DELETE FROM oncall_override WHERE id = :id

-- name: quiet
SELECT person, weekly, critical FROM quiet_hours

-- name: keep_quiet
INSERT INTO quiet_hours (person, weekly, critical, by)
VALUES (:person, :weekly, :critical, :by)
ON CONFLICT (person) DO UPDATE SET weekly = excluded.weekly, critical = excluded.critical,
    by = excluded.by, at = now()

-- name: forget_quiet
DELETE FROM quiet_hours WHERE person = :person
