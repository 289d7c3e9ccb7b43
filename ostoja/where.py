"""The gateway and the keys that a command uses, its output format, and the checkout it runs in."""

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostoja.api import Api
from ostoja.failure import Exit, Failure
from ostoja.show import Screen

CHECKOUT = Path(__file__).parents[1]  # or where it is installed, without a .env
DEFAULTS = [CHECKOUT / each for each in ("deploy/up/expert.env", ".env.example")]
ELSEWHERE = (
    "run this where the deployment runs: in its checkout, or in the container that has its "
    "settings, as in `docker compose run --rm inspector doctor`"
)


def shipped() -> list[Path]:
    """Return what settings and a company's files are put over."""
    return [*DEFAULTS, *sorted(CHECKOUT.glob("*/*/shipped/*.toml"))]


@dataclass(frozen=True)
class Session:
    """Passed to every command."""

    api: Api
    screen: Screen


def session(*, url: str | None, key: str | None, operator: str | None, as_json: bool) -> Session:
    """Use the flags or OSTOJA_*, else the deployment's own settings."""
    values = settings()
    keys = {
        "X-ADMIN-API-KEY": key or values.get("ADMIN_API_KEY", ""),
        "X-API-KEY": key or values.get("SERVICE_API_KEY", ""),
    }
    port = values.get("GATEWAY_PORT") or "8080"
    if not url and not port.isdecimal():
        raise Failure(Exit.USAGE, f"GATEWAY_PORT is not a port: {port!r}")
    where = url or f"http://127.0.0.1:{port}"
    return Session(Api(where, keys, operator or user()), Screen(as_json=as_json))


def env_file() -> Path:
    """Return .env of the current folder, else of the checkout."""
    here = Path.cwd() / ".env"
    return here if here.is_file() else CHECKOUT / ".env"


def settings() -> Mapping[str, str]:
    """Read the defaults, .env and the shell; the last that names a setting wins."""
    values: dict[str, str] = {}
    for path in filter(Path.is_file, (*DEFAULTS, env_file())):
        try:
            values |= parse(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise Failure(Exit.USAGE, f"{path}: {error.strerror}") from None
    return {**values, **os.environ}


def parse(text: str) -> dict[str, str]:
    """Read .env as a shell and Docker Compose do; `make check` finds lines that differ."""
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): _unquoted(value.strip()) for name, _, value in pairs}


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return f"uid {os.getuid()}"


def has_deployment() -> bool:
    """Return whether the deployment's settings and its own tools are here."""
    tools = (CHECKOUT / "deploy" / "inspection" / "__main__.py").exists()
    return tools and (env_file().is_file() or "POSTGRES_SUPERUSER_PASSWORD" in os.environ)


def run_here(*words: str) -> None:
    """Run a module of the checkout in this terminal.

    :raises Failure: there is no checkout, or it ended with an error, which it has said
    """
    if not (CHECKOUT / "deploy" / "up").is_dir():
        raise Failure(Exit.USAGE, ELSEWHERE)
    done = subprocess.run([sys.executable, "-m", *words], cwd=CHECKOUT, check=False)  # noqa: S603 - a fixed command
    if done.returncode:
        raise Failure(Exit.NOT_OK, "nothing was changed")


def checkout_lines(module: str, *words: str) -> list[dict[str, Any]]:
    """Run a module of the checkout on .env, and return the JSON that it prints, an object a line.

    :raises Failure: there is no checkout; or the module ended with one, its last line
    """
    if not has_deployment():
        raise Failure(Exit.USAGE, ELSEWHERE)
    command = [sys.executable, "-m", module, str(env_file().resolve()), *words]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - a fixed command
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        failure = lines[-1]["failure"] if lines else f"{module} ended with {done.returncode}"
        raise Failure(Exit.USAGE if done.returncode == Exit.USAGE else Exit.NOT_OK, failure)
    return lines
