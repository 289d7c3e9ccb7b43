"""`make up` and related targets: `python3 -m deploy.up COMMAND`; standard library only.

`up` and `prepare` start under any Python from 3.11, create the virtual environment and continue
inside it.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.backup.repository import repository
from deploy.up import environment, machine, questions, supervisor
from deploy.up.environment import ROOT, SERVICES, WITH_TABLES, port
from deploy.up.process import HOST, ServerError, check_ports_free, wait_until
from deploy.up.servers import RABBITMQ_PORTS, Postgres, RabbitMQ, Redis, Server, postgres_binaries
from libs.common.process import certificates

if TYPE_CHECKING:
    from tests.cluster.harness import Cluster

LOCAL = ROOT / ".local"
ENV = ROOT / ".env"
HEALTHY_SECONDS = 60.0
SERVICE_PORTS = (
    *(f"{name.upper()}{kind}_PORT" for name in SERVICES for kind in ("", "_METRICS")),
    *("SANDBOX_PORT", "SANDBOX_MAIL_PORT", "SANDBOX_SMTP_PORT"),
)


def main() -> int:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # execv drops the rest
    parser = argparse.ArgumentParser(prog="python3 -m deploy.up")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(run: Callable[..., None], **options: Any) -> argparse.ArgumentParser:
        command = commands.add_parser(run.__name__.replace("_", "-"), **options)
        command.set_defaults(run=run)
        return command

    for plain in (env, check, certs, up, up_cluster, down, clean, status):
        add(plain)
    tools = add(prepare, help="install what the tests need")
    tools.set_defaults(tests=True)
    tools.add_argument("--browser", action="store_true", help="and a browser for make test-pages")
    tools.add_argument("--cluster", action="store_true", help="and the servers of test-cluster")
    add(logs).add_argument("service", nargs="?")
    sql = add(psql)
    sql.add_argument("service", choices=WITH_TABLES)
    sql.add_argument("sql", nargs="?")
    add(send_test).add_argument("address")
    of_service = add(run, help="run a command of a service with its settings")
    of_service.add_argument("service", choices=SERVICES)
    of_service.add_argument("arguments", nargs="+")
    chosen = vars(parser.parse_args())
    name, chosen_run = chosen.pop("command"), chosen.pop("run")
    try:
        chosen_run(**chosen)
    except (ServerError, machine.MachineError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def env() -> None:
    with _alone():
        _ensure_env(trying=bool(os.environ.get("TRY")))
    with chdir(ROOT):
        if found := list(environment.env_file_faults(ENV)):
            raise ServerError("\n  ".join(["fix this first:", *found]))
    print(f"{ENV.name} has every key and password, and config/ has every file")


def _ensure_env(*, trying: bool) -> None:
    questions.finish(ROOT)
    data_exists = any(LOCAL.glob("**/postgres/data"))
    if environment.ensure(ENV, data_exists=data_exists, trying=trying):
        defaults = (
            "for a trial: alerts go to a sandbox, and follow-ups are also sent at night"
            if trying
            else "for production: no sandbox, quiet hours are on (`make env TRY=1`: for a trial)"
        )
        print(f"{ENV.name} is new, with defaults {defaults}; docs/going-live.md says what to set")
    environment.ensure_config(ROOT / "config")


def prepare(*, tests: bool = False, browser: bool = False, cluster: bool = False) -> None:
    with _alone():
        machine.prepare(tests=tests, browser=browser, cluster=cluster)


def check() -> None:
    _within_venv()
    with _alone():
        _ensure_env(trying=False)
    _check(environment.load(ENV))
    print(f"{ENV.name} and config/*.toml are valid: every service would start")


def _check(values: Mapping[str, str]) -> None:
    """:raises ServerError: .env or config/ is invalid; nothing was started or stopped"""
    from deploy.check import faults  # needs the virtual environment

    if found := faults(values, ENV):
        raise ServerError("\n  ".join(["nothing was changed; fix this first:", *found]))


def certs() -> None:
    _within_venv()
    from deploy import certs  # needs the virtual environment

    with chdir(ROOT):
        certs.main()


def _within_venv(*, cluster: bool = False) -> None:
    if Path(sys.prefix) != machine.VENV:
        prepare(cluster=cluster)
        os.execv(machine.PYTHON, [str(machine.PYTHON), "-m", "deploy.up", *sys.argv[1:]])  # noqa: S606


def up_cluster() -> None:
    up(cluster=True)


def up(*, cluster: bool = False) -> None:
    began = time.monotonic()
    _within_venv(cluster=cluster)
    with _alone():
        _ensure_env(trying=True)
        values = environment.load(ENV)
        _check(values)
        _choose(values, cluster=cluster)
        _check_backups(values)
        servers = _servers(values)
        if not cluster:
            _check_ports(values, servers)
        print("starting the servers, the services and the sandbox")
        if cluster:
            LOCAL.chmod(0o711)  # PostgreSQL's user must reach its data
            _cluster(values).start()
        else:
            for server in servers:
                server.launch()
            for server in servers:
                server.wait()
                if isinstance(server, Postgres) and server.repository is not None:
                    server.pgbackrest("stanza-create")  # until then no log is archived
        _set_up(values)
        _supervise(values)
    _wait_healthy(values)
    if told := supervisor.who_is_the_gateway():
        print(told)
    print(f"up in {time.monotonic() - began:.0f} s")
    _print_addresses(values)
    _print_invitation(values)


def _choose(values: Mapping[str, str], *, cluster: bool) -> None:
    """Remember whether one host runs or three; each has data of its own.

    :raises ServerError: the other one runs, or three cannot do what .env asks for
    """
    if cluster and values["BACKUP_DIR"]:
        raise ServerError("three hosts cannot do this yet: empty BACKUP_DIR in .env")
    if cluster:
        _choose_tls(values)
    if cluster == supervisor.CLUSTER.exists():
        return
    running = supervisor.record("supervisor").pid or any(one.pid for one in _servers(values))
    if running:
        raise ServerError("the servers run, one of each or three: `make down` stops them first")
    if cluster:
        supervisor.CLUSTER.parent.mkdir(exist_ok=True)
        supervisor.CLUSTER.touch()
    else:
        supervisor.CLUSTER.unlink()


def _choose_tls(values: Mapping[str, str]) -> None:
    """:raises ServerError: there is no certificate, or the data were begun without or with one"""
    if values["CERTS_DIR"] and not _certs(values, "etcd").exists():
        hosts = ",".join(("cluster", *supervisor.HOSTS.values()))
        raise ServerError(
            f"CERTS_DIR has no certificates of the servers: make certs HOSTS={hosts}, and "
            "CERTS_DIR=certs/cluster in .env"
        )
    data = LOCAL / "hosts"  # etcd keeps the addresses that it began with
    if data.exists() and any(data.glob("*/etcd/tls")) != bool(values["CERTS_DIR"]):
        raise ServerError("CERTS_DIR in .env cannot change while there are data: `make clean`")


def _certs(values: Mapping[str, str], name: str) -> Path:
    return ROOT / values["CERTS_DIR"] / name


def down() -> None:
    with _alone():
        values = environment.load(ENV)
        supervisor.record("supervisor").stop(signal.SIGTERM, 2 * supervisor.DRAIN_SECONDS)
        supervisor.stop_all()  # left over by a killed supervisor
        if supervisor.CLUSTER.exists():
            _cluster(values).stop()
            return
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: server.stop(), _servers(values)))


def clean() -> None:
    if not os.environ.get("YES"):
        print("this deletes the database with all leads and consents; .env stays")
        print("type yes to continue: ", end="", flush=True)
        if sys.stdin.readline().strip() != "yes":
            raise ServerError("nothing was deleted (YES=1 skips the question)")
    down()
    records = LOCAL / "consent"
    if records.is_dir() and any(records.iterdir()):
        # The proof of erasures and the trail's checkpoints must outlive the database.
        kept = ROOT / ".local.kept" / f"consent-{time.strftime('%Y-%m-%dT%H%M%S')}"
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        records.rename(kept)
        print(f"the records of consent are now in {kept.relative_to(ROOT)}")
    shutil.rmtree(LOCAL, ignore_errors=True)
    shutil.rmtree(ROOT / ".venv-bench", ignore_errors=True)


@contextmanager
def _alone() -> Iterator[None]:
    """Make a second concurrent call wait, or it would start everything twice."""
    LOCAL.mkdir(mode=0o700, exist_ok=True)
    with (LOCAL / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _servers(values: Mapping[str, str]) -> Sequence[Server]:
    return _cluster(values).servers if supervisor.CLUSTER.exists() else _single(values)


def _cluster(values: Mapping[str, str]) -> "Cluster":
    from tests.cluster.harness import PORTS, Cluster

    ports = environment.cluster_ports(values, PORTS)
    certs = ROOT / values["CERTS_DIR"] if values["CERTS_DIR"] else None
    return Cluster(LOCAL / "hosts", list(supervisor.HOSTS.values()), ports, values, certs=certs)


def _speaks_tls(values: Mapping[str, str]) -> bool:
    """Return whether the servers do; only those of three hosts can."""
    return supervisor.CLUSTER.exists() and bool(values["CERTS_DIR"])


def _single(values: Mapping[str, str]) -> tuple[RabbitMQ, Postgres, Redis]:
    def log(name: str) -> Path:
        return LOCAL / "log" / f"{name}.log"

    return (
        RabbitMQ(  # first, because it starts slowest
            LOCAL / "rabbitmq",
            {name: port(values, name) for name in RABBITMQ_PORTS},
            password=values["RABBITMQ_ADMIN_PASSWORD"],
            log=log("rabbitmq"),
        ),
        Postgres(
            LOCAL / "postgres",
            port=port(values, "POSTGRES_PORT"),
            password=values["POSTGRES_SUPERUSER_PASSWORD"],
            log=log("postgres"),
            repository=repository(values, ROOT),
        ),
        Redis(
            LOCAL / "redis",
            port=port(values, "REDIS_PORT"),
            password=values["REDIS_PASSWORD"],
            log=log("redis"),
        ),
    )


def _check_ports(values: Mapping[str, str], servers: Sequence[Server]) -> None:
    """Check the ports before any of our processes is stopped.

    :raises PortTakenError: names every port that another program uses
    """
    record = LOCAL / "run" / "ports.json"
    running = supervisor.record("supervisor").pid or any(server.pid for server in servers)
    ours = set(json.loads(record.read_text())) if running and record.exists() else set()
    variables = (
        *SERVICE_PORTS,
        *(name for server in servers for name in server.ports),
        RABBITMQ_PORTS[-1],
    )
    wanted = {variable: port(values, variable) for variable in variables}
    check_ports_free({name: number for name, number in wanted.items() if number not in ours})
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(sorted(ours | {*wanted.values()})))


def _check_backups(values: Mapping[str, str]) -> None:
    """:raises ServerError: a new database would take the place of one that was lost"""
    found = repository(values, ROOT)
    if found and found.has_backups() and not (LOCAL / "postgres" / "data").exists():
        raise ServerError(
            "there is no database here, but BACKUP_DIR has backups of one: `ostoja restore` brings "
            "it back (docs/backup.md); for a new one, set another BACKUP_DIR"
        )


def _set_up(values: Mapping[str, str]) -> None:
    """Provision the servers and migrate, as containers do."""
    from deploy import setup  # needs the virtual environment

    given = {
        **os.environ,
        **values,
        "POSTGRES_ADDRESS": f"{HOST}:{values['POSTGRES_PORT']}",
        "POSTGRES_OPTIONS": "",
        "POSTGRES_SUPERUSER": "",
        "RABBITMQ_MANAGEMENT_URL": f"http://{HOST}:{values['RABBITMQ_UI_PORT']}",
    }
    if _speaks_tls(values):
        given = environment.of_tls_servers(given) | {"TLS_DIR": str(_certs(values, "ostoja"))}
    setup.prepare(given)


def _supervise(values: Mapping[str, str]) -> None:
    """Start the supervisor; restart it if settings or code have changed since it started."""
    running = supervisor.record("supervisor")
    fingerprint = _fingerprint(values)
    if running.runs_as(fingerprint):
        return
    running.stop(signal.SIGTERM, 2 * supervisor.DRAIN_SECONDS)
    supervisor.stop_all()
    ports = {variable: port(values, variable) for variable in SERVICE_PORTS}
    if supervisor.CLUSTER.exists():  # HAProxy has these
        taken = {f"{name.upper()}_PORT" for name in SERVICES}
        ports = {name: number for name, number in ports.items() if name not in taken}
    check_ports_free(ports)
    running.spawn(
        [sys.executable, "-m", "deploy.up.supervisor"],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        log=LOCAL / "log" / "supervisor.log",
        fingerprint=fingerprint,
    )


def _fingerprint(values: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(values.items())).encode())
    for folder in ("config", "deploy/up", "deploy/sandbox", "libs", "services"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path}{path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _wait_healthy(values: Mapping[str, str]) -> None:
    url = f"http://{HOST}:{values['GATEWAY_PORT']}/api/health/deep"
    headers = {"X-ADMIN-API-KEY": values["ADMIN_API_KEY"]}  # admins are not rate-limited here
    try:
        wait_until(
            "the system",
            HEALTHY_SECONDS,
            lambda: _works(_get(url, headers)),
            lambda: supervisor.record("supervisor").pid is not None,
        )
    except ServerError as error:
        unhealthy = [row for row in _rows(values) if row[3] != "ok"]
        lines = [f"{error}: {url} says: {_get(url, headers) or 'nothing'}"]
        lines += [f"{row[0]}: {row[3]}; see `make logs SERVICE={row[0]}`" for row in unhealthy]
        raise ServerError("\n".join(lines)) from None


def _works(health: str) -> bool:
    """Show the health of each part. `degraded` (an unhealthy external target) is not a failure."""
    return '"status"' in health and '"unhealthy"' not in health


def _get(url: str, headers: Mapping[str, str] | None = None, tls_dir: Path | None = None) -> str:
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))
        tls = certificates.client(ROOT / tls_dir) if tls_dir else None
        with urllib.request.urlopen(request, timeout=5, context=tls) as answer:
            return str(answer.read().decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return error.read().decode(errors="replace")
    except OSError:
        return ""


def _rows(values: Mapping[str, str]) -> Iterator[tuple[str, int | None, int, str]]:
    for server in _servers(values):
        health = "ok" if server.pid and server.ready() else "down"
        yield server.name, server.pid, next(iter(server.ports.values())), health
    for name in supervisor.names():
        own, service = supervisor.process_environment(values, name), name.partition("-")[0]
        number = int(own["SANDBOX_PORT" if name == "sandbox" else "HTTP_PORT"])
        pid = supervisor.record(name).pid
        path = "/api/health" if service == "gateway" else "/health"
        tls = environment.tls_dir(values, service) if service in WITH_TABLES else None
        url = f"http{'s' if tls else ''}://{own.get('HTTP_HOST') or HOST}:{number}{path}"
        # without a process of ours, whatever answers there is another program
        answer = _get(url, tls_dir=tls) if pid else ""
        yield name, pid, number, "down" if pid is None else "ok" if answer else "no answer"


def status() -> None:
    rows = list(_rows(environment.load(ENV)))
    print(f"{'process':<12}{'pid':>9}{'port':>8}  health")
    for name, pid, number, health in rows:
        print(f"{name:<12}{pid or '-':>9}{number:>8}  {health}")


def _print_invitation(values: Mapping[str, str]) -> None:
    """Print a link for the first admin, if there is none; to a terminal, as a log would keep it."""
    if not sys.stdout.isatty():
        print("  the console: `make up` in a terminal prints a link while it has no admin")
        return
    done = subprocess.run(
        [sys.executable, "-m", "services.console", "invitation"],
        env=supervisor.process_environment(values, "console"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if link := done.stdout.strip():
        print(
            f"  {link}\n  the console: the first admin sets a password there, once, within 24 hours"
        )


def _print_addresses(values: Mapping[str, str]) -> None:
    for what, variable, path in (
        ("the API, and its documentation", "GATEWAY_PORT", "/docs"),
        ("RabbitMQ (admin; RABBITMQ_ADMIN_PASSWORD in .env)", "RABBITMQ_UI_PORT", "/"),
        ("a company's web site, with form and chat", "SANDBOX_PORT", "/"),
        ("the sandbox: what Slack got", "SANDBOX_PORT", "/slack"),
        ("the sandbox: mail", "SANDBOX_MAIL_PORT", "/"),
    ):
        secure = variable == "RABBITMQ_UI_PORT" and _speaks_tls(values)
        address = f"http{'s' if secure else ''}://{HOST}:{values[variable]}{path}"
        print(f"  {address:<48} {what}")


def logs(service: str | None) -> None:
    found = sorted((LOCAL / "log").glob(f"{service or '*'}.log"))
    if not found:
        raise ServerError(f"no log of {service or 'any service'} in .local/log")
    follow = ["--follow=name"] if sys.stdout.isatty() else []
    names = [str(path.relative_to(ROOT)) for path in found]
    os.chdir(ROOT)
    os.execvp("tail", ["tail", "--lines=100", *follow, *names])  # noqa: S606


def psql(service: str, sql: str | None) -> None:
    values = environment.load(ENV)
    account = ["-h", HOST, "-p", values["POSTGRES_PORT"], "-U", service, environment.DATABASE]
    command = ["--command", sql] if sql else []
    own = {"PGPASSWORD": values[environment.DATABASE_PASSWORDS[service]]}
    if _speaks_tls(values):
        names, folder = certificates.OPTIONS["postgresql"], _certs(values, service)
        files = (certificates.AUTHORITIES, certificates.CERTIFICATE, certificates.KEY)
        own["PGSSLMODE"] = "verify-full"
        for name, file in zip(names, files, strict=True):
            own[f"PG{name.upper()}"] = str(folder / file)
    program = str(postgres_binaries() / "psql")
    os.execve(program, [program, *account, *command], {**os.environ, **own})  # noqa: S606


def send_test(address: str) -> None:
    values = environment.load(ENV)
    settings = supervisor.process_environment(values, "followups")
    command = [str(machine.PYTHON), "-m", "services.followups", "send-test", address]
    done = subprocess.run(command, cwd=ROOT, env=settings, check=False)
    if done.returncode:
        raise ServerError("nothing was sent")
    sandbox = f"the sandbox, which shows them at http://{HOST}:{values['SANDBOX_MAIL_PORT']}/"
    print(f"sending to {values['SMTP_HOST'] or sandbox}")


def run(service: str, arguments: Sequence[str]) -> None:
    settings = supervisor.process_environment(environment.load(ENV), service)
    python = str(machine.PYTHON)
    command = [python, "-m", f"services.{service}", *arguments]
    os.chdir(ROOT)
    os.execve(python, command, settings)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main())
