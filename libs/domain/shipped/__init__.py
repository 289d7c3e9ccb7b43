"""What a company's file is put over if it says `shipped = true`: the files of this folder.

A file without it is whole, as all were before (docs/decisions/0074-configuration.md).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from libs.common.process.config_file import ConfigFile, over

FOLDER = Path(__file__).parent


def read(path: Path, name: str) -> ConfigFile:
    """:raises SystemExit: it cannot be read, or is not TOML"""
    file = ConfigFile(path)
    if file.raw.get("shipped") is True:
        del file.raw["shipped"]
        shipped = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
        own = file.raw.get("targets")
        left_out = {
            target: options.get("fallback")
            for target, options in shipped.get("targets", {}).items()
            if isinstance(own, dict) and own.get(target) is False
        }
        if left_out:
            shipped |= {part: _without(shipped[part], left_out) for part in ("routes", "answers")}
        file.whole = over(shipped, file.raw)
    return file


def _without(node: Any, left_out: Mapping[str, str | None]) -> Any:
    """Name the fallback of each target that is left out in its place, or nothing without one."""
    if isinstance(node, dict):
        return {key: _without(value, left_out) for key, value in node.items()}
    if isinstance(node, list):
        kept: list[Any] = []
        for each in (_without(item, left_out) for item in node):
            nobody = each is None or (isinstance(each, dict) and each.get("to", "") is None)
            if not nobody and each not in kept:
                kept.append(each)
        return kept
    return left_out.get(node, node) if isinstance(node, str) else node
