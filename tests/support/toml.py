"""Write TOML, which the standard library only reads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_toml(path: Path, document: Mapping[str, Any]) -> None:
    lines = [f"{name} = {_value(section)}" for name, section in document.items()]
    path.write_text("\n".join(lines), encoding="utf-8")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)} = {_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
