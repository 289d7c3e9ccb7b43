"""`python -m deploy.setup`: prepares the servers before the services start, then exits.

It provisions accounts, schemas, exchanges and policies, and runs each service's migrations as the
owner of its schema. Idempotent. It reads the passwords from the environment, named as in .env.
"""

import os
import subprocess
import sys
from urllib.parse import quote

import psycopg2

from deploy import provision
from deploy.check import faults
from deploy.up.environment import AMQP_PASSWORDS, DATABASE_PASSWORDS, ROOT, WITH_TABLES, load
from libs.common.process import certificates

# All settings of a provider must be set, or none (the sandbox): with half of them, alerts would go
# to the sandbox or a password to the wrong host.
PROVIDERS = (
    ("MONDAY_API_URL", "MONDAY_API_TOKEN", "MONDAY_BOARD_ID"),
    ("SMS_API_URL", "SMS_API_TOKEN", "SMS_TO"),
    ("SMTP_HOST", "SMTP_PORT", "SMTP_TLS"),
)


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
    superuser = values.get("POSTGRES_SUPERUSER") or "postgres"
    management = values.get("RABBITMQ_MANAGEMENT_URL", "http://rabbitmq:15672")
    try:
        provision.provision_postgres(
            _database(superuser, values["POSTGRES_SUPERUSER_PASSWORD"], "postgres"),
            {role: values[name] for role, name in DATABASE_PASSWORDS.items()},
        )
        provision.provision_rabbitmq(
            management,
            ("admin", values["RABBITMQ_ADMIN_PASSWORD"]),
            {service: values[name] for service, name in AMQP_PASSWORDS.items()},
            provision.retry_policies(ROOT / values.get("ALERTS_CONFIG", "config/alerts.toml")),
        )
    except psycopg2.OperationalError as error:  # wrong address, password or authority
        raise SystemExit(f"setup: PostgreSQL: {error}") from None
    except OSError as error:
        raise SystemExit(f"setup: RabbitMQ at {management}: {error}") from None
    print("setup: accounts, schemas, exchanges and policies are up to date")
    for service in WITH_TABLES:
        owner = f"{service}_owner"
        url = _database(owner, values[DATABASE_PASSWORDS[owner]], provision.DATABASE)
        done = subprocess.run(
            [sys.executable, "-m", f"services.{service}", "migrate"],
            env={**values, "OWNER_DATABASE_URL": url},
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"setup: the schema {service} is not migrated; the reason is above")
        print(f"setup: the schema {service} is up to date")
    return 0


def _database(role: str, password: str, name: str) -> str:
    address, options = os.environ["POSTGRES_ADDRESS"], os.environ.get("POSTGRES_OPTIONS", "")
    url = f"postgresql://{role}:{quote(password, safe='')}@{address}/{name}{options}"
    return certificates.in_url(url, certificates.of_environment())


if __name__ == "__main__":
    sys.exit(main())
