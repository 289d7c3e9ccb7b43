"""`python -m deploy.setup`: all that must be there before the services start, then it ends.

The servers' accounts, schemas, exchanges and policies, then each service's migrations as the owner
of its schema. Harmless when repeated. Its environment: .env's passwords, by the same names.
"""

import os
import subprocess
import sys
from urllib.parse import quote

from psycopg2.extensions import make_dsn

from deploy import provision
from deploy.local.environment import AMQP_PASSWORDS, DATABASE_PASSWORDS, ROOT, WITH_TABLES

# A provider is real as a whole, or the sandbox as a whole: half of one's settings would send alerts
# to the sandbox, or a password to the wrong host.
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
            raise SystemExit(f"setup: .env has {given}; it needs {', '.join(missing)} as well")
    postgres = {"host": values.get("POSTGRES_HOST", "postgres"), "port": "5432"}
    provision.provision_postgres(
        make_dsn(
            **postgres,
            user="postgres",
            password=values["POSTGRES_SUPERUSER_PASSWORD"],
            dbname="postgres",
        ),
        {role: values[name] for role, name in DATABASE_PASSWORDS.items()},
    )
    provision.provision_rabbitmq(
        values.get("RABBITMQ_MANAGEMENT_URL", "http://rabbitmq:15672"),
        ("admin", values["RABBITMQ_ADMIN_PASSWORD"]),
        {service: values[name] for service, name in AMQP_PASSWORDS.items()},
        provision.retry_policies(ROOT / values.get("ALERTS_CONFIG", "config/alerts.toml")),
    )
    print("setup: accounts, schemas, exchanges and policies are as they should be")
    for service in WITH_TABLES:
        owner = f"{service}_owner"
        password = quote(values[DATABASE_PASSWORDS[owner]], safe="")
        address = f"{postgres['host']}:{postgres['port']}/{provision.DATABASE}"
        subprocess.run(
            [sys.executable, "-m", f"services.{service}", "migrate"],
            env={**values, "OWNER_DATABASE_URL": f"postgresql://{owner}:{password}@{address}"},
            check=True,
        )
        print(f"setup: the schema {service} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
