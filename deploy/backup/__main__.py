"""`python -m deploy.backup ENV_FILE COMMAND [OPTIONS AS JSON]`: prints its answer as JSON.

For `ostoja backup`, `verify-backup` and `restore`. What it reports while it works goes to stderr.
"""

import json
import sys
from pathlib import Path
from typing import Any

from deploy.backup.deployment import Deployment
from deploy.up.environment import load
from deploy.up.process import ServerError


def run(env_file: Path, command: str, **given: Any) -> dict[str, Any]:
    """:raises ServerError, OSError: says why it cannot be done"""
    here = Deployment(env_file.parent.resolve(), load(env_file))
    match command:
        case "backup":
            return here.backup(**given)
        case "verify":
            return here.verify()
        case "plan":
            return {"lines": here.plan(**given)}
        case _:
            here.plan(**given)  # refuses what must not be done
            return here.restore(given["at"], lambda said: print(said, file=sys.stderr))


if __name__ == "__main__":
    env, name, *options = sys.argv[1:]
    try:
        print(json.dumps(run(Path(env), name, **json.loads(*options or ["{}"]))))
    except (ServerError, OSError) as error:
        print(json.dumps({"failure": str(error)}))
        sys.exit(1)
