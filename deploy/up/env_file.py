"""Checks the syntax of .env; standard library only, because `make env` runs on a bare machine."""

import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from deploy.up import environment

ALERTS = Path("config/alerts.toml")
LIKENESS = 0.85  # similarity to a setting's name above which a name counts as a typo
# Values that Ostoja, a shell (`. ./.env`) and Docker Compose all read the same.
_PLAIN = re.compile(r"[\w./:@,+=%*-]*", re.ASCII)
_QUOTED = re.compile(r"'[^']*'|\"[^\"$`\\!]*\"")
_OTHERS = re.compile(r"COMPOSE_|DOCKER_|OSTOJA_")  # read by Docker, or by the command-line tool


def env_file_faults(path: Path) -> Iterator[str]:
    """Yield a fault for each line of .env that is invalid or that programs may read differently."""
    known = set(environment.parse(environment.EXAMPLE.read_text(encoding="utf-8")))
    of_targets = {name for name, _ in variables(ALERTS)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        place = f"{path.name}:{number}: {name.strip()[:60]}"
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            yield f"{path.name}:{number}: must be NAME=value, without spaces around the name"
        elif not _PLAIN.fullmatch(value) and not _QUOTED.fullmatch(value):
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
