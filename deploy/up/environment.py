"""Reads and writes .env, and derives each process's environment: only its own settings and secrets.

Standard library only, because `make env` runs on a bare machine.
"""

import base64
import os
import re
import secrets
import socket
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from deploy.up.process import HOST, ServerError
from libs.common import beside

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / ".env.example"
EXPERT = beside.path(__file__, "expert.env")
EXAMPLE_CONFIG = ROOT / "config.example"
SANDBOX = beside.text(__file__, "sandbox.env").split("\n\n")
"""The settings of each provider."""
DATABASE = VHOST = "ostoja"
WITH_TABLES = ("consent", "followups", "alerts", "console")
SERVICES = (*WITH_TABLES, "gateway")
CLUSTER = Path(".local/run/cluster")
VERIFIED = "?sslmode=verify-full"
BEHIND = 10000  # a server behind HAProxy has a port this much higher

ALERTS = Path("config/alerts.toml")
SHIPPED_ALERTS = ROOT / "libs" / "domain" / "shipped" / "alerts.toml"
LIKENESS = 0.85  # similarity to a setting's name above which a name counts as a typo
# Values that Ostoja, a shell (`. ./.env`) and Docker Compose all read the same.
PLAIN = re.compile(r"[\w./:@,+=%*-]*", re.ASCII)
_QUOTED = re.compile(r"'[^']*'|\"[^\"$`\\!]*\"")
_OTHERS = re.compile(r"COMPOSE_|DOCKER_|OSTOJA_")  # read by Docker, or by the command-line tool


def parse(text: str) -> dict[str, str]:
    """Read .env as a shell and Docker Compose do; `make check` finds lines that differ."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs}


def defaults() -> dict[str, str]:
    """Return every setting with its default."""
    return parse("\n".join(file.read_text(encoding="utf-8") for file in (EXPERT, EXAMPLE)))


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _secret() -> str:
    return secrets.token_urlsafe(32)


def _key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


_MADE: dict[str, Callable[[], str]] = {
    "secret": _secret,
    "key": _key,
    "key_ring": lambda: f"k1:{_key()}",
    "webhook_secret": lambda: f"whsec_{_key()}",
}
_LISTED = beside.toml(__file__, "secrets.toml")
BOUND_TO_DATA: list[str] = _LISTED["bound_to_data"]
UNSEEN: dict[str, str] = _LISTED["unseen"]
DATABASE_PASSWORDS = {
    role: f"{role.upper()}_DB_PASSWORD"
    for service in WITH_TABLES
    for role in (service, f"{service}_owner")
}
API_KEYS = ("ADMIN_API_KEY", "SERVICE_API_KEY")
INTERNAL_KEYS = {service: f"{service.upper()}_INTERNAL_KEY" for service in WITH_TABLES}
AMQP_PASSWORDS = {service: f"{service.upper()}_AMQP_PASSWORD" for service in SERVICES}
_BY_SERVICE = (*DATABASE_PASSWORDS.values(), *AMQP_PASSWORDS.values(), *INTERNAL_KEYS.values())
GENERATED = {name: _MADE[how] for how, names in _LISTED["made"].items() for name in names}
GENERATED |= dict.fromkeys(_BY_SERVICE, _secret)
SECRETS_OF = {process: set(names) for process, names in _LISTED["of"].items()}
SECRETS_OF["gateway"] |= {*INTERNAL_KEYS.values()}
SECRETS = {*GENERATED}.union(*SECRETS_OF.values())

# Defaults of a first .env for a trial: everything goes to the sandbox, also at night.
FOR_TRYING = {"COMPOSE_PROFILES": "sandbox", "FOLLOWUP_QUIET_HOURS": "off"}


def ensure(path: Path, *, data_exists: bool, trying: bool) -> bool:
    """Write .env, or add what a newer version needs; existing values stay.

    :param trying: give a first .env the defaults for a trial instead of those for production
    :returns: whether .env is new
    :raises ServerError: a key that existing data depends on is missing
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    present = {name for name, value in parse(text).items() if value} | set(os.environ)
    lost = [name for name in BOUND_TO_DATA if name not in present]
    if lost and data_exists:
        raise ServerError(
            f"{path.name} lacks {', '.join(lost)}, and the data in .local needs it: "
            "put the old .env back, or delete the data with `make clean`"
        )
    fresh = {name: make() for name, make in GENERATED.items() if name not in present} | _raised()
    if first := not path.exists():
        text = EXAMPLE.read_text(encoding="utf-8")
        # Containers and volumes of two clones must not collide, whatever their folders are called.
        fresh["COMPOSE_PROJECT_NAME"] = f"ostoja-{secrets.token_hex(3)}"
        fresh |= FOR_TRYING if trying else {}
    if (changed := filled(text, fresh)) != text:
        put(path, changed.encode())
    return first


def filled(text: str, fresh: Mapping[str, str]) -> str:
    """Return .env with these values: in the lines that are there, or below them."""
    left, lines = dict(fresh), []
    for line in text.splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={left.pop(name)}" if name in left else line)
    lines += [f"{name}={value}" for name, value in left.items()]
    return "".join(f"{line}\n" for line in lines)


def put(path: Path, content: bytes, *, is_secret: bool = False) -> None:
    """Replace a file whole or not at all; if root does, its owner stays."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600 if is_secret or path.name == ".env" else 0o644)
    unfinished.write_bytes(content)
    if path.exists() and os.geteuid() == 0:
        owner = path.stat()
        os.chown(unfinished, owner.st_uid, owner.st_gid)
    unfinished.replace(path)


def _raised() -> dict[str, str]:
    """Return every port, raised by the shell's PORT_OFFSET; none without it.

    :raises ServerError: it is not a number, or a port would exceed 65535
    """
    if not (given := os.environ.get("PORT_OFFSET")):
        return {}
    ports = {
        name: int(value) for name, value in defaults().items() if name.endswith("_PORT") and value
    }
    if not given.isascii() or not given.isdecimal() or max(ports.values()) + int(given) > 65535:
        raise ServerError(f"PORT_OFFSET must be a number up to {65535 - max(ports.values())}")
    return {name: str(number + int(given)) for name, number in ports.items()}


def ensure_config(folder: Path) -> None:
    """Copy missing files from config.example/ to config/; existing files stay."""
    for shipped in EXAMPLE_CONFIG.rglob("*"):
        own = folder / shipped.relative_to(EXAMPLE_CONFIG)
        if shipped.is_file() and not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            put(own, shipped.read_bytes())


def load(path: Path) -> dict[str, str]:
    """Read every setting from the shell, else from .env, else its default."""
    values = defaults()
    if path.exists():
        values |= {name: value for name, value in parse(path.read_text()).items() if value}
    return {name: os.environ.get(name, value) for name, value in values.items()}


def port(values: Mapping[str, str], variable: str) -> int:
    try:
        number = int(values[variable])
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ServerError(f"{variable} in .env is not a port: {values[variable]!r}")
    return number


def cluster_ports(values: Mapping[str, str], names: Iterable[str]) -> dict[str, int]:
    """Return each port that the hosts of `make up-cluster` use, all in the range of .env's."""
    higher = {"_OWN_PORT": BEHIND, "_PLAIN_PORT": 2 * BEHIND, "_PORT_B": 2, "_PORT_C": 3}

    def of(name: str) -> int:
        for ending, more in higher.items():
            if name.endswith(ending):
                return port(values, name.removesuffix(ending) + "_PORT") + more
        return port(values, name)

    return {name: of(name) for name in names}


def for_member(
    values: Mapping[str, str], name: str, host: str, hosts: Sequence[str]
) -> dict[str, str]:
    """Return the environment of one service on one of several hosts.

    It reaches the other services, PostgreSQL and Redis through HAProxy of its own host, and the
    node of RabbitMQ there first.
    """
    own_first = sorted(hosts, key=lambda other: other != host)
    brokers = ",".join(f"{other}:{values['RABBITMQ_PORT']}" for other in own_first)
    settings = for_process(values, name, host, brokers)
    own = port(values, f"{name.upper()}_PORT") + BEHIND
    settings |= {"HTTP_HOST": host, "HTTP_PORT": str(own)}
    if name == "gateway":
        settings.setdefault("TRUSTED_PROXIES", ",".join(hosts))
        if values["CERTS_DIR"]:  # HAProxy of this host has the other port, with TLS
            settings["HTTP_PORT"] = str(own + BEHIND)
    return settings


def encrypted(settings: dict[str, str]) -> dict[str, str]:
    """Return the settings for servers that speak TLS only, as all of three hosts do."""
    changes = {
        "AMQP_URL": ("amqp:", "amqps:", ""),
        "REDIS_URL": ("redis:", "rediss:", ""),
        "DATABASE_URL": ("", "", VERIFIED),
    }
    return settings | {
        name: settings[name].replace(plain, tls, 1) + options
        for name, (plain, tls, options) in changes.items()
        if name in settings
    }


def of_tls_servers(values: Mapping[str, str]) -> dict[str, str]:
    """Return .env's settings as a deployment with such servers elsewhere would have them."""
    return {
        **values,
        "RABBITMQ_SCHEME": "amqps",
        "RABBITMQ_MANAGEMENT_URL": f"https://{HOST}:{port(values, 'RABBITMQ_UI_PORT')}",
        "REDIS_SCHEME": "rediss",
        "POSTGRES_OPTIONS": VERIFIED,
    }


def for_process(
    values: Mapping[str, str], name: str, host: str = HOST, brokers: str = ""
) -> dict[str, str]:
    """Return the environment of one service or the sandbox.

    :param host: where its servers and the other services are
    :param brokers: the nodes of RabbitMQ, if not one there
    """
    mine = _secrets_of(name, values)
    https = values["CERTS_DIR"] and not brokers  # HAProxy encrypts what leaves its host
    settings = {
        key: value
        for key, value in values.items()
        # PGBACKREST_… may be the key of a store of backups.
        if value and (key not in SECRETS or key in mine) and not key.startswith("PGBACKREST_")
    }
    pretended = {
        key: value
        for key, value in _of_the_sandbox(values).items()
        if key not in settings and (key not in SECRETS or key in mine)
    }
    settings |= pretended
    settings.setdefault("PUBLIC_BASE_URL", f"http://{HOST}:{values['GATEWAY_PORT']}")
    if name == "sandbox":
        return settings | {"SANDBOX_SLACK_FILE": ".local/slack.sqlite"}
    if name == "alerts" and pretended:
        named = ("ALERTS_PRIVATE_NETWORKS", "SUBSCRIPTIONS_PRIVATE_NETWORKS")
        both = {each: filter(None, (settings.get(each), f"{HOST}/32")) for each in named}
        settings |= {each: ",".join(networks) for each, networks in both.items()}
    prefix = name.upper()
    settings |= {
        "HTTP_PORT": values[f"{prefix}_PORT"],
        "METRICS_PORT": values[f"{prefix}_METRICS_PORT"],
    }
    password = quote(values[AMQP_PASSWORDS[name]], safe="")
    brokers = brokers or f"{host}:{values['RABBITMQ_PORT']}"
    settings["AMQP_URL"] = f"amqp://{name}:{password}@{brokers}/{VHOST}"
    if own := tls_dir(values, name):
        settings["TLS_DIR"] = str(own)
    if name in WITH_TABLES:
        settings["DATABASE_URL"] = database_url(values, name, host)
        settings["INTERNAL_API_KEY"] = values[INTERNAL_KEYS[name]]
    if name == "consent" and values["BACKUP_DIR"]:
        copy = f"{values['BACKUP_DIR']}/records/{socket.gethostname()}"
        settings.setdefault("CONSENT_RECORDS_COPY", copy)
    if name == "console":
        where = f"{host}:{values['GATEWAY_HTTPS_PORT' if https else 'GATEWAY_PORT']}"
        settings.setdefault("GATEWAY_URL", f"http{'s' if https else ''}://{where}")
        queues = f"http://{HOST}:{values['RABBITMQ_UI_PORT']}/#/queues/{VHOST}"
        settings.setdefault("RABBITMQ_UI_URL", queues)
    if name == "gateway":
        password = quote(values["REDIS_PASSWORD"], safe="")
        settings["REDIS_URL"] = f"redis://:{password}@{host}:{values['REDIS_PORT']}/0"
        if https:
            settings["HTTPS_PORT"] = values["GATEWAY_HTTPS_PORT"]
        for upstream in WITH_TABLES:
            address = f"{host}:{port(values, f'{upstream.upper()}_PORT')}"
            settings.setdefault(f"{upstream.upper()}_URL", service_url(values, upstream, address))
    return settings


def _secrets_of(name: str, values: Mapping[str, str]) -> set[str]:
    # With a real relay the sandbox gets no mail that could come back by its buttons.
    is_idle = name == "sandbox" and values["SMTP_HOST"]
    return SECRETS_OF[name] - {"SERVICE_API_KEY"} if is_idle else SECRETS_OF[name]


def tls_dir(values: Mapping[str, str], name: str) -> Path | None:
    """Return the folder of a process, as `make certs` writes it; None without TLS."""
    return Path(folder) / name if (folder := values["CERTS_DIR"]) else None


def service_url(values: Mapping[str, str], name: str, address: str = "") -> str:
    scheme = "https" if values["CERTS_DIR"] else "http"
    address = address or f"{HOST}:{port(values, f'{name.upper()}_PORT')}"
    return f"{scheme}://{address}"


def database_url(values: Mapping[str, str], role: str, host: str = HOST) -> str:
    password = quote(values[DATABASE_PASSWORDS[role]], safe="")
    driver = "postgresql" if role.endswith("_owner") else "postgresql+aiopg"
    return f"{driver}://{role}:{password}@{host}:{values['POSTGRES_PORT']}/{DATABASE}"


def _of_the_sandbox(values: Mapping[str, str]) -> dict[str, str]:
    """The sandbox's settings for providers whose settings are empty."""
    own = {"host": HOST, "url": f"http://{HOST}:{values['SANDBOX_PORT']}"}
    pretended: dict[str, str] = {}
    for block in SANDBOX:
        filled = Template(block).substitute(own, smtp_port=values["SANDBOX_SMTP_PORT"])
        group = parse(filled)
        if not any(values.get(name) for name in group):
            pretended |= group
    return pretended


def env_file_faults(path: Path) -> Iterator[str]:
    """Yield a fault for each line of .env that is invalid or that programs may read differently."""
    known = set(defaults())
    of_targets = {name for file in (ALERTS, SHIPPED_ALERTS) for name, _ in variables(file)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        place = f"{path.name}:{number}: {name.strip()[:60]}"
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            yield f"{path.name}:{number}: must be NAME=value, without spaces around the name"
        elif not PLAIN.fullmatch(value) and not _QUOTED.fullmatch(value):
            yield (
                f"{place}: quote the value 'like this', without a ' in it: a shell, Docker Compose "
                "and make would each read it differently"
            )
        elif name.endswith("_PORT") and not _is_port(value.strip("'\"")):
            yield f"{place}: not a port"
        elif not {name, name.removesuffix("_FILE")} & (known | of_targets):
            # A near match is a typo; any other unknown name may be a setting of an older version.
            close = get_close_matches(name, sorted(known), n=1, cutoff=LIKENESS)
            if close and not _OTHERS.match(name):
                yield f"{place}: unknown setting; did you mean {close[0]}?"


def _is_port(value: str) -> bool:
    return not value or (value.isascii() and value.isdecimal() and 0 < int(value) < 65536)


def variables(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each variable that a file names, with the key that uses it."""

    def within(node: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, dict):
            if isinstance(name := node.get("env"), str):
                yield name, key
            for inner, value in node.items():
                yield from within(value, inner)

    try:
        yield from within(tomllib.loads(path.read_text(encoding="utf-8")), "")
    except (OSError, ValueError):
        return  # its service reports it better
