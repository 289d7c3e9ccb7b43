#!/bin/bash
# Encrypts what COMMAND prints with BACKUP_KEY, as NAME-DAY-until-DAY.enc, and deletes the files of
# NAME whose last day is over. A command that fails leaves nothing new, and deletes nothing.
#
#   deploy/backup/dump.sh NAME COMMAND...       NAME may begin with a folder
#   deploy/backup/dump.sh --open FILE           prints what it was
#
# BACKUP_KEY is the one of .env, or of the environment. docs/going-live.md#backup has the commands.
set -euo pipefail
umask 077
KEPT_DAYS=35 # as long as pgBackRest keeps four full backups, of which one is made each week

# shellcheck source=/dev/null
key=${BACKUP_KEY:-$(. "$(dirname "$(readlink -f "$0")")/../../.env"; echo "$BACKUP_KEY")}
[ -n "$key" ] || { echo "BACKUP_KEY is empty: python3 -m deploy.up env makes it" >&2; exit 2; }

cipher() { # pgBackRest's own; the key is in no command line
    BACKUP_KEY=$key openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -pass env:BACKUP_KEY "$@"
}

if [ "${1:-}" = --open ]; then
    cipher -d -in "$2"
    exit
fi
[ $# -ge 2 ] || { echo "usage: $0 NAME COMMAND... | --open FILE" >&2; exit 2; }
name=$1 today=$(date +%F)
shift
exec 9>>"$name.part"
flock -n 9 || { echo "$name.part is being written by another one" >&2; exit 1; }
trap 'rm -f "$name.part"' EXIT
"$@" 9>&- | cipher -e 9>&- > "$name.part"
sync "$name.part"
mv "$name.part" "$name-$today-until-$(date -d "$today + $KEPT_DAYS days" +%F).enc"
trap - EXIT # the next one may have begun
for file in "$name"-????-??-??-until-????-??-??.enc; do
    last=${file%.enc}
    if [[ ${last##*-until-} < $today ]]; then rm -- "$file"; fi
done
