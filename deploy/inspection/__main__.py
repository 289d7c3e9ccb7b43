"""`python -m deploy.inspection ENV_FILE [--live]`."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.check import faults
from deploy.inspection import going_live, keys, rabbitmq, say
from deploy.up.environment import CLUSTER, load, of_tls_servers, port, tls_dir
from deploy.up.process import HOST, ServerError
from libs.common.process import certificate_ends
from libs.common.process.finding import Finding


def findings(values: Mapping[str, str], env_file: Path, *, live: bool) -> Iterator[Finding]:
    yield from keys.findings(values, env_file)
    yield from configuration(values, env_file)
    alerts = env_file.parent / values["ALERTS_CONFIG"]
    own = f"http://{HOST}:{port(values, 'RABBITMQ_UI_PORT')}"
    certs = tls_dir(values, "ostoja")
    certs = env_file.parent / certs if certs else None
    yield from certificate_ends.findings(certs, {})
    url = values["RABBITMQ_MANAGEMENT_URL"] or own
    yield from rabbitmq.findings(url, values, certs, alerts)
    yield from going_live.pages(values, env_file.parent)
    yield from going_live.findings(values, alerts, live=live)


def configuration(values: Mapping[str, str], env_file: Path) -> Iterator[Finding]:
    """Check .env and config/*.toml as each service will read them at its next start."""
    found = faults(values, env_file)
    yield from (say("configuration-fault", fault=fault) for fault in found)
    if not found:
        yield say("configuration")


def main(env_file: Path, *, live: bool) -> None:
    values = load(env_file)
    if values["CERTS_DIR"] and (env_file.parent / CLUSTER).exists():
        values = of_tls_servers(values)
    for finding in findings(values, env_file, live=live):
        print(json.dumps(finding), flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), live="--live" in sys.argv)
    except ServerError as error:
        print(json.dumps({"failure": str(error)}))
        sys.exit(2)
