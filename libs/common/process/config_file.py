"""TOML configuration files; each error is reported with its line and key."""

import re
import tomllib
from collections.abc import Collection, Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError

M = TypeVar("M", bound=BaseModel)
Where = Sequence[str | int]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d{1,6})([smhd])")


def _duration(value: object) -> timedelta:
    if not (match := _DURATION.fullmatch(str(value))):
        raise ValueError("must be a number and one of s, m, h, d, as in 90m or 2d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


Duration = Annotated[timedelta, BeforeValidator(_duration)]


class FaultError(ValueError):
    """Raised by a model's validator for a value deeper inside it."""

    def __init__(self, where: Where, message: str) -> None:
        super().__init__(message)
        self.where = where


class ConfigFile:
    raw: dict[str, Any]
    """What the file says."""
    whole: dict[str, Any]
    """What counts: of a file that is put over a shipped one, both."""

    def __init__(self, path: Path) -> None:
        """:raises SystemExit: it cannot be read, or is not TOML"""
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            self.raw = self.whole = tomllib.loads(self._text)
        except OSError as error:
            raise SystemExit(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SystemExit(f"{path}: not UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error))
            message = f"{found[2]}: {found[1]}" if found else f"1: {error}"
            raise SystemExit(f"{path}:{message}") from None

    def load(self, model: type[M]) -> M:
        """:raises SystemExit: names every fault"""
        try:
            return model.model_validate(self.whole)
        except ValidationError as error:
            raise SystemExit("\n".join(self.faults(error, model))) from None

    def faults(self, error: ValidationError, model: type[BaseModel]) -> list[str]:
        """Describe the errors without values, because those from the environment may be secrets."""
        found = []
        for fault in error.errors(include_url=False, include_input=False):
            path, table = self._found(fault["loc"])
            if fault["type"] == "missing":
                path.append(fault["loc"][-1])
            elif isinstance(cause := fault.get("ctx", {}).get("error"), FaultError):
                path += cause.where
            found.append(self.fault(path, _message(table, fault, model)))
        return found

    def fault(self, path: Where, message: str) -> str:
        named = ".".join(map(str, path))
        place = f"{self.path}:{self._line(path)}" if path else str(self.path)
        return f"{place}: {named}: {message}" if named else f"{place}: {message}"

    def _found(self, where: Where) -> tuple[list[str | int], Any]:
        """Return the key path as in the file, and its table.

        Pydantic adds the tags of unions and `[key]`, which are not in the file.
        """
        path: list[str | int] = []
        node: Any = self.raw
        table = self.raw
        for part in where:
            if _holds(node, [part]):
                path.append(part)
                table = node if isinstance(node, dict) else table
                node = _item(node, part)
        return path, table

    def _line(self, path: Where) -> int:
        """Return the first line of the statement that sets it, or of the table it belongs to."""
        known = list(path)
        while known and not _holds(self.raw, known):
            known.pop()
        lines = self._text.splitlines()
        began = 1
        for number in range(1, len(lines) + 1):
            try:
                document = tomllib.loads("\n".join(lines[:number]))
            except tomllib.TOMLDecodeError:
                continue  # inside a multi-line value
            if _holds(document, known):
                break
            began = number + 1
        # An array of tables is one statement: find a key that occurs in it once.
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        named = re.compile(rf"(^|[\s{{,]){re.escape(key)}\s*=")
        matching = [at for at in range(began, number + 1) if named.search(lines[at - 1])]
        return matching[0] if len(matching) == 1 else began


def _holds(document: Any, path: Where) -> bool:
    for part in path:
        try:
            document = _item(document, part)
        except (LookupError, TypeError):
            return False
    return True


def _item(node: Any, part: str | int) -> Any:
    """Return a part of a table; a table of an array also by its name."""
    if isinstance(node, list) and isinstance(part, str):
        return {each["name"]: each for each in node if isinstance(each, dict)}[part]
    return node[part]


def _message(table: dict[str, Any], fault: Any, model: type[BaseModel]) -> str:
    match fault["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"is not known{did_you_mean(str(fault['loc'][-1]), _keys(table, model))}"
        case "union_tag_not_found":
            return f"{fault['ctx']['discriminator']} is missing"
        case "union_tag_invalid":
            context = fault["ctx"]
            tags = re.findall(r"'([^']+)'", context["expected_tags"])
            message = f"{context['tag']!r} is none of {', '.join(tags)}"
            return message + did_you_mean(str(context["tag"]), tags)
    return str(fault["msg"]).removeprefix("Value error, ")


def over(shipped: Any, own: Any, whole: Collection[str] = ()) -> Any:
    """Return the shipped values with a file's own over them, name by name.

    A list that begins with `...` goes on the shipped one. `false` leaves out what is shipped.

    :param whole: names of tables that an own one replaces
    """
    if isinstance(shipped, list) and isinstance(own, list) and own[:1] == ["..."]:
        return shipped + own[1:]
    if not (isinstance(shipped, dict) and isinstance(own, dict)):
        return own
    both = dict(shipped)
    for name, value in own.items():
        known = shipped.get(name)
        both[name] = value if name in whole else over(known, value, whole)
        if value is False and known is not None and not isinstance(known, bool):
            del both[name]
    return both


def did_you_mean(given: str, known: Sequence[str]) -> str:
    close = get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _keys(table: dict[str, Any], model: type[BaseModel]) -> list[str]:
    """Guess from its keys which part of the model a table is; return the keys not yet set."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    properties = [part["properties"].keys() for part in parts if "properties" in part]
    most = max(len(keys & table.keys()) for keys in properties)
    likely = (keys for keys in properties if len(keys & table.keys()) == most)
    return [key for keys in likely for key in keys if key not in table]
