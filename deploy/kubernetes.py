"""`python3 -m deploy.kubernetes`: prints the Secrets of docs/kubernetes.md from .env.

`ostoja` is what the chart reads. The others have the accounts with which its setup Job prepares the
engines, in the forms that CloudNativePG and the RabbitMQ Cluster Operator read. Standard library
only, as `make env`.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from deploy.up import environment


def secrets(values: Mapping[str, str]) -> dict[str, Any]:
    """Return a List for `kubectl apply`; a secret that .env leaves empty is left out."""
    password = values["RABBITMQ_ADMIN_PASSWORD"]
    given = {name: values[name] for name in sorted(environment.SECRETS) if values.get(name)}
    postgres = {
        "username": values["POSTGRES_SUPERUSER"] or "postgres",
        "password": values["POSTGRES_SUPERUSER_PASSWORD"],
    }
    rabbitmq = {
        "default_user.conf": f"default_user = admin\ndefault_pass = {password}\n",
        "username": "admin",
        "password": password,
        "host": values["RABBITMQ_ADDRESS"].partition(":")[0] or "ostoja-rabbitmq",
        "port": "5672",
        "provider": "rabbitmq",
        "type": "rabbitmq",
    }
    every = {
        "ostoja": ("Opaque", given),
        "ostoja-postgres": ("kubernetes.io/basic-auth", postgres),
        "ostoja-rabbitmq": ("Opaque", rabbitmq),
    }
    kind = {"apiVersion": "v1", "kind": "Secret"}
    items = [
        {**kind, "metadata": {"name": name}, "type": type_, "stringData": data}
        for name, (type_, data) in every.items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def main() -> int:
    file = environment.ROOT / ".env"
    if not file.exists():
        sys.stderr.write("no .env here; make env writes it, with new keys\n")
        return 1
    json.dump(secrets(environment.load(file)), sys.stdout, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
