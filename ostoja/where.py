"""The gateway and the keys that a command uses, and its output format."""

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from ostoja import dotenv
from ostoja.api import Api
from ostoja.failure import Exit, Failure
from ostoja.show import Screen

CHECKOUT = Path(__file__).parents[1]  # or the place where it is installed, which has no .env


@dataclass(frozen=True)
class Session:
    """Passed to every command."""

    api: Api
    screen: Screen


def session(*, url: str | None, key: str | None, operator: str | None, as_json: bool) -> Session:
    """Use the flags or OSTOJA_*, else the deployment's own settings."""
    values = _settings()
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


def _settings() -> dict[str, str]:
    path = env_file()
    try:
        values = dotenv.parse(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except OSError as error:
        raise Failure(Exit.USAGE, f"{path}: {error.strerror}") from None
    return {**values, **os.environ}


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return f"uid {os.getuid()}"
