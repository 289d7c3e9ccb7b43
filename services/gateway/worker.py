"""One of GATEWAY_WORKERS; `workers.py` starts it."""

import os
import sys

from prometheus_client import values

_NUMBER = os.environ["GATEWAY_WORKER"]
# Set before any metric is created. By number, not by pid, so that counters continue after a restart
# and a worker that keeps dying does not leave ever more files.
values.ValueClass = values.MultiProcessValue(lambda: _NUMBER)  # type: ignore[no-untyped-call]

from services.gateway.__main__ import main  # noqa: E402 - it makes metrics

if __name__ == "__main__":
    sys.exit(main())
