"""Checks .env and config/*.toml before anything is started or stopped.

Each service validates its own part with the same code as at start.
"""

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path

from deploy.local import supervisor
from deploy.local.env_file import ALERTS, env_file_faults, variables
from deploy.local.environment import GENERATED, ROOT, SERVICES

# A valid placeholder for a variable that alerts.toml names and this process does not get.
_UNSEEN = {
    "url": "https://unseen.invalid/",
    "board": "1",
    "port": "25",
    "tls": "none",
    "permit": "20",
    "secret": "whsec_dW5zZWVu",
    "phone": "+48600000000",
    "email": "unseen@example.com",
}


def faults(values: Mapping[str, str], env_file: Path) -> list[str]:
    """Yield each fault with its place; none if every service would start.

    Without .env, as in a container, a secret that this process does not get counts as valid.
    """
    if env_file.exists():
        with chdir(env_file.parent):
            found = [*env_file_faults(env_file), *_of_services(values, {}, _line_numbers(env_file))]
    else:
        made = {name: values.get(name) or make() for name, make in GENERATED.items()}
        made["CERTS_DIR"] = ""  # it has only this container's own
        with chdir(ROOT):
            unseen = {key: _UNSEEN.get(kind, "unseen") for key, kind in variables(ALERTS)}
            found = list(_of_services({**values, **made}, unseen, {}))
    return list(dict.fromkeys(found))


def _of_services(
    values: Mapping[str, str], unseen: Mapping[str, str], lines: Mapping[str, int]
) -> Iterator[str]:
    for service in SERVICES:
        its_own = importlib.import_module(f"services.{service}.__main__")
        try:
            with _environment({**supervisor.process_environment(values, service), **unseen}):
                its_own.check()
        except SystemExit as fault:
            for told in str(fault).splitlines():
                name = told.partition(":")[0]
                if name in {"HTTP_PORT", "METRICS_PORT"}:
                    continue  # composed from a setting that is checked above
                from_file = name in lines and name not in os.environ
                yield f".env:{lines[name]}: {told}" if from_file else told


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _line_numbers(path: Path) -> dict[str, int]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line.partition("=")[0]: number for number, line in enumerate(lines, 1)}
