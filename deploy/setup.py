"""`python -m deploy.setup`: prepares the servers before the services start, then exits.

It provisions accounts, schemas, exchanges and policies, and runs each service's migrations as the
owner of its schema. Idempotent. It reads the passwords from the environment, named as in .env.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psycopg2

from deploy import provision
from deploy.check import faults
from deploy.up.environment import (
    AMQP_PASSWORDS,
    DATABASE_PASSWORDS,
    ROOT,
    SANDBOX,
    WITH_TABLES,
    load,
    parse,
)
from libs.common.process import certificates

# All settings of a provider must be set, or none (the sandbox): with half of them, alerts would go
# to the sandbox or a password to the wrong host.
PROVIDERS = [tuple(parse(block)) for block in SANDBOX]


def main() -> int:
    values = os.environ
    for provider in PROVIDERS:
        missing = [name for name in provider if not values.get(name)]
        if 0 < len(missing) < len(provider):
            given = ", ".join(name for name in provider if name not in missing)
            raise SystemExit(f"setup: .env has {given}; it also needs {', '.join(missing)}")
    accounts = (*DATABASE_PASSWORDS.values(), *AMQP_PASSWORDS.values())
    if missing := [name for name in accounts if not values.get(name)]:
        raise SystemExit(
            f"setup: nothing was changed; .env lacks {', '.join(missing)}: "
            "`make env` adds them, on one host, and the others get its .env"
        )
    env_file = ROOT / ".env"
    if found := faults(load(env_file), env_file):
        raise SystemExit("\n  ".join(["setup: nothing was changed; fix this first:", *found]))
    prepare(values)
    print("setup: accounts, exchanges, policies and the schema of each service are up to date")
    return 0


def prepare(values: Mapping[str, str]) -> None:
    """Provision the servers and migrate all schemas, these in parallel.

    :raises SystemExit: says what failed
    """
    tls_dir = Path(folder) if (folder := values.get("TLS_DIR")) else None
    superuser = values.get("POSTGRES_SUPERUSER") or "postgres"
    management = values.get("RABBITMQ_MANAGEMENT_URL", "http://rabbitmq:15672")

    def database(role: str, password: str, name: str = provision.DATABASE) -> str:
        address, options = values["POSTGRES_ADDRESS"], values.get("POSTGRES_OPTIONS", "")
        account = f"{role}:{quote(values[password], safe='')}"
        return certificates.in_url(f"postgresql://{account}@{address}/{name}{options}", tls_dir)

    def migrate(service: str) -> subprocess.CompletedProcess[str]:
        owner = f"{service}_owner"
        return subprocess.run(
            [sys.executable, "-m", f"services.{service}", "migrate"],
            env={**values, "OWNER_DATABASE_URL": database(owner, DATABASE_PASSWORDS[owner])},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    try:
        provision.provision_postgres(
            database(superuser, "POSTGRES_SUPERUSER_PASSWORD", "postgres"),
            {role: values[name] for role, name in DATABASE_PASSWORDS.items()},
        )
        provision.provision_rabbitmq(
            management,
            ("admin", values["RABBITMQ_ADMIN_PASSWORD"]),
            {service: values[name] for service, name in AMQP_PASSWORDS.items()},
            provision.retry_policies(ROOT / values.get("ALERTS_CONFIG", "config/alerts.toml")),
            tls_dir=tls_dir,
        )
    except psycopg2.OperationalError as error:  # wrong address, password or authority
        raise SystemExit(f"setup: PostgreSQL: {error}") from None
    except OSError as error:
        raise SystemExit(f"setup: RabbitMQ at {management}: {error}") from None
    with ThreadPoolExecutor() as pool:
        for service, done in zip(WITH_TABLES, pool.map(migrate, WITH_TABLES), strict=True):
            if done.returncode:
                raise SystemExit(f"setup: the migration of {service} failed:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
