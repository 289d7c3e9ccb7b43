#!/bin/bash
# A backup of what runs in containers, for cron each night: everything once a week, else what has
# changed. pgBackRest deletes what is older than four full backups; with no new full one, nothing.
set -euo pipefail
umask 077
cd "$(dirname "$(readlink -f "$0")")/../.."
# shellcheck source=/dev/null
place=${BACKUP_DIR:-$(. ./.env; echo "$BACKUP_DIR")}
begun=$(date --iso-8601=seconds)
type=full # by its age, not by the day of the week: a machine may be off on Sundays
[ -z "$(find "$place/last-full" -mmin -9360 2>&-)" ] || type=incr # six and a half days
docker compose exec -T postgres pgbackrest backup --type=$type
if [ $type = full ]; then touch -d "$begun" "$place/last-full"; fi
deploy/backup/dump.sh "$place/consent" docker compose exec -T consent tar -C /var/lib/ostoja -c .
