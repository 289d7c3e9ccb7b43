"""The files beside a module: its texts, tables and statements."""

import tomllib
from pathlib import Path
from typing import Any


def path(module: str, name: str) -> Path:
    """Return the path of a file in a module's folder.

    :param module: its `__file__`
    :param name: or only the ending, for the module's own name
    """
    own = Path(module)
    return own.with_suffix(name) if name.startswith(".") else own.with_name(name)


def text(module: str, name: str) -> str:
    return path(module, name).read_text(encoding="utf-8")


def toml(module: str, name: str = ".toml") -> Any:
    return tomllib.loads(text(module, name))
