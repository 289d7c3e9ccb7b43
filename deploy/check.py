"""Checks .env and config/*.toml before anything is started or stopped.

Each service validates its own part with the same code as at start.
`python -m deploy.check ENV_FILE` prints each fault as JSON, for `ostoja check`.
"""

import importlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from email.utils import getaddresses
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.up import supervisor
from deploy.up.environment import (
    ALERTS,
    GENERATED,
    ROOT,
    SERVICES,
    SHIPPED_ALERTS,
    UNSEEN,
    env_file_faults,
    load,
    variables,
)
from deploy.up.process import ServerError
from libs.common.process.config_file import ConfigFile
from libs.domain.forms import SANDBOX

ADDRESSES = ("ESCALATION_EMAIL", "STAFF_EMAIL", "MAIL_FROM")
# RFC 2606: these domains do not exist, so relays reject each mail permanently.
RESERVED = re.compile(r"(.*\.)?(example(\.(com|net|org))?|test|invalid|localhost)")
_HOST = re.compile(r"(?:https?://|@)([\w.-]+)")


def faults(values: Mapping[str, str], env_file: Path) -> list[str]:
    """Yield each fault with its place; none if every service would start.

    Without .env, as in a container, a secret that this process does not get counts as valid.
    """
    if env_file.exists():
        named = (line.partition("=")[0] for line in env_file.read_text("utf-8").splitlines())
        lines = {name: number for number, name in enumerate(named, 1)}
        with chdir(env_file.parent):
            found = [*env_file_faults(env_file), *_of_services(values, {}, lines)]
    else:
        made = {name: values.get(name) or make() for name, make in GENERATED.items()}
        made["CERTS_DIR"] = ""  # it has only this container's own
        with chdir(ROOT):
            own = Path(values.get("ALERTS_CONFIG") or ALERTS)
            every = (*variables(SHIPPED_ALERTS), *variables(own))
            unseen = {key: UNSEEN.get(kind, "unseen") for key, kind in every}
            found = list(_of_services({**values, **made}, unseen, {}))
    if is_production(values):
        folder = env_file.parent if env_file.exists() else ROOT
        found += [f"{name}: {fault}" for name, fault in examples(values, folder / "config")]
    return list(dict.fromkeys(found))


def is_production(values: Mapping[str, str]) -> bool:
    """Return whether links work from outside: with https and a name that can exist."""
    url = urlsplit(values.get("PUBLIC_BASE_URL", ""))
    host = url.hostname or ""
    return url.scheme == "https" and "." in host and not RESERVED.fullmatch(host)


def examples(values: Mapping[str, str], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what is still the shipped example's, with its setting or file."""
    for name in ADDRESSES:
        domains = (each.rpartition("@")[2] for _, each in getaddresses([values.get(name, "")]))
        if any(RESERVED.fullmatch(domain.lower().rstrip(".")) for domain in domains):
            yield name, f"is still {values[name]}; relays reject mail to or from it permanently"
    for name in ("company.toml", "followups.toml", "forms.toml"):
        try:
            own, company = (
                ConfigFile(path).raw
                for path in (folder / name, ROOT / "config.example" / "company.toml")
            )
        except SystemExit:
            continue  # reported as a configuration fault
        strings = list(_strings(own))
        texts = " ".join(strings)
        hosts = set(_HOST.findall(texts))
        left = sorted(host for host in hosts if RESERVED.fullmatch(host) or host == "127.0.0.1")
        left += [f'"{SANDBOX}"'] if SANDBOX in strings else []
        left += [each for key in ("name", "nip") if (each := company["company"][key]) in texts]
        if left:
            yield f"config/{name}", f"still has the example's {', '.join(left)}; write your own"


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _strings(inner)


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


if __name__ == "__main__":
    path = Path(sys.argv[1])
    try:
        for found in faults(load(path), path):
            print(json.dumps({"fault": found}))
    except ServerError as error:
        print(json.dumps({"failure": str(error)}))
        sys.exit(2)
