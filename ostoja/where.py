"""Which gateway, with which key, and for whom output is written."""

import getpass
import os
from dataclasses import dataclass
from pathlib import Path

from deploy.local.environment import ROOT, load, port
from deploy.local.servers import HOST
from ostoja.api import Api
from ostoja.failure import Exit, Failure
from ostoja.show import Screen


@dataclass(frozen=True)
class Session:
    """What every command is given."""

    api: Api
    screen: Screen
    values: dict[str, str]
    """The settings, as `make up` reads them."""


def session(*, url: str | None, key: str | None, operator: str | None, as_json: bool) -> Session:
    """Take what a flag or OSTOJA_* says, else what the deployment's own settings say."""
    values = settings()
    keys = {
        "X-ADMIN-API-KEY": key or values["ADMIN_API_KEY"],
        "X-API-KEY": key or values["SERVICE_API_KEY"],
    }
    where = url or f"http://{HOST}:{port(values, 'GATEWAY_PORT')}"
    return Session(Api(where, keys, operator or user()), Screen(as_json=as_json), values)


def env_file() -> Path:
    """Return .env of the folder one is in, else of the checkout."""
    here = Path.cwd() / ".env"
    return here if here.is_file() else ROOT / ".env"


def settings() -> dict[str, str]:
    try:
        return load(env_file())
    except OSError as error:
        raise Failure(Exit.USAGE, f"{env_file()}: {error.strerror}") from None


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return f"uid {os.getuid()}"
