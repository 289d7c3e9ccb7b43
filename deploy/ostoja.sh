#!/bin/sh
# The `ostoja` command, linked from .venv/bin (make prepare) and from the image's /venv/bin.
here=$(dirname "$(dirname "$(readlink -f "$0")")")
PATH="$here/.venv/bin:$PATH" PYTHONPATH="$here" exec python3 -P -m ostoja "$@"
