"""The commands of commands.toml: a list, an act on what is listed, or a function (`do`)."""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from inspect import Parameter, Signature
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID, uuid4

import typer

from ostoja.failure import Exit, Failure
from ostoja.show import count, moment, name, prose, span
from ostoja.where import Session

Row = Mapping[str, Any]

_TABLE = tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8"))
ROWS = {row["name"]: row for group in _TABLE.values() if isinstance(group, list) for row in group}
RUN: dict[str, Callable[..., None]] = {}
"""What each command does, by its name, on a session and with its parameters."""
_TYPES: dict[str, Any] = {
    "text": str, "texts": list[str], "uuid": UUID, "uuids": list[UUID], "int": int, "path": Path,
    "file": typer.FileBinaryRead,
}  # fmt: skip
_COLUMNS = {"name": name, "count": count, "prose": prose}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WEEKLY = ("begins", "ends", "zone")


def ago(given: str) -> str:
    """Read `2h` as two hours ago, else an ISO 8601 time, local unless it has an offset."""
    return _time(given, -1, "2h, 30m, 1d (ago), or 2026-11-25T23:00")


def until(given: str) -> str:
    """Read `2h` as in two hours, else as `ago` does."""
    return _time(given, 1, "30m, 2h, 1d (from now), or 2026-11-26T09:00")


def _time(given: str, sign: int, wanted: str) -> str:
    try:
        if found := re.fullmatch(r"(\d{1,6})([smhd])", given):
            span = timedelta(**{_UNITS[found[2]]: int(found[1])})
            return (datetime.now(UTC) + sign * span).isoformat()
        return datetime.fromisoformat(given).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise typer.BadParameter(wanted) from None


_WHEN = {"ago": ago, "until": until}


def _reason(row: Mapping[str, Any]) -> str:
    why, message = row["reason"] or "", row["error_message"] or ""
    return message if message.startswith(why) else f"{why}: {message}"


def _alert(row: Any) -> str:
    return f"{row['id']}\n{': '.join(filter(None, (row['event_type'], _reason(row))))}"


def _silenced(each: Any) -> str:
    lines = [*each["matchers"], *(["critical too"] if each["critical"] else [])]
    return "\n".join([*lines, *([_hours(each["weekly"])] if each["weekly"] else [])])


def _hours(weekly: Any) -> str:
    return "{0} {begins} to {ends} {zone}".format(" ".join(weekly["days"]), **weekly)


def _quiet(each: Any) -> str:
    return f"{each['name']} is quiet {_hours(each['quiet']) if each['quiet'] else 'at no hour'}"


def _schedule(each: Any) -> str:
    zone = f" {each['timezone']}" if each["timezone"] else ""
    return str(each["every"] or each["cron"] or each["event_type"]) + zone


def _lead(lead: Any) -> str:
    topic = [] if lead["topic"] == "lead" else [lead["topic"]]
    who = lead["name"] or lead["phone"] or lead["email"] or "unknown"
    return ", ".join([*topic, who, *filter(None, (lead["city"], lead["wish"]))])


def _joined(each: Any) -> str:
    return "disabled" if each["disabled"] else "joined" if each["joined"] else "invited"


def _who(act: Any) -> str:
    who = act["actor_name"] or act["actor_id"]
    return who if act["actor_kind"] == "staff" else f"{who} ({act['actor_id']})"


def _owned(found: Any) -> str:
    owner = f": {found['owner']} has it" if found["owner"] else ""
    return f"{found['id']} is {found['state']}{owner}"


_VALUES: dict[str, Callable[[Any], Any]] = {
    "alert": _alert,
    "accepted": lambda row: f"accepted {moment(row['accepted_at'])}".replace("\n", ", "),
    "oldest": lambda row: row["oldest_pending_seconds"] and span(row["oldest_pending_seconds"]),
    "owner": lambda each: each["owner_name"] or moment(each["next_at"]),
    "silenced": _silenced,
    "quiet": _quiet,
    "schedule": _schedule,
    "paused": lambda row: "yes" if row.get("paused") is True else row.get("paused") or None,
    "lead": _lead,
    "fields": lambda lead: ", ".join(f"{name}: {value}" for name, value in lead["fields"].items()),
    "why": lambda each: ": ".join(filter(None, (each["by"], each["why"]))),
    "end": lambda each: moment(each["revoked_at"] or each["expires_at"]),
    "events": lambda each: " ".join(each["events"]),
    "stands": lambda each: each["paused"] or each["state"],
    "scopes": lambda each: "\n".join(each["scopes"]),
    "roles": lambda each: ", ".join(each["roles"]),
    "joined": _joined,
    "who": _who,
    "act_why": lambda act: act["reason"] or "",
    "link": lambda answer: answer["link"] or "The link was mailed to the person.",
    "has_roles": lambda found: f"{found['person']} has {', '.join(found['roles'])}",
    "owned": _owned,
}


def _attempts(found: Any) -> Iterator[dict[str, Any]]:
    """Yield each target as it stands, and each of its attempts."""
    for each in found["deliveries"]:
        details = (
            _reason(each),
            each["operator"] and f"by {each['operator']}",
            each["duplicates"] and f"repeated {each['duplicates']:,} times",
            each["duplicate_of"] and f"a duplicate of {each['duplicate_of']}",
        )
        at = each["finished_at"] or each["next_attempt_at"]
        yield {**each, "at": at, "why": "\n".join(filter(None, details))}
        for one in each["history"]:
            why = (one["reason"], one["status"], one["excerpt"], f"({one['seconds']:.1f} s)")
            of = {"target": "", "attempts": one["attempt"], "state": one["outcome"]}
            yield {**one, **of, "why": " ".join(map(str, filter(None, why)))}


def _named(found: Mapping[str, Mapping[str, Any]], as_: str = "name") -> list[dict[str, Any]]:
    return [{**row, as_: each} for each, row in sorted(found.items())]


_ITEMS: dict[str, Callable[[Any], Iterable[Any]]] = {
    "attempts": _attempts,
    "counts": lambda found: [*_named(found["targets"], "target"), {**found, "target": "all"}],
    "named": _named,
    "limits": lambda found: [
        {"name": each, "limit": found[each], "source": found["sources"][each], "whom": whom}
        for each, whom in _TABLE["whom"].items()
    ],
    "purposes": lambda found: [
        {"purpose": purpose, "channel": channel, **each}
        for purpose, channels in (found["purposes"] or {}).items()
        for channel, each in channels.items()
    ],
    "schedules": lambda found: _named(found["schedules"], "schedule"),
}


def _more(session: Session, found: Any) -> None:
    if found["next_cursor"] is not None:
        most = found["limit"]
        session.screen.note(f"these are the oldest {most:,}; --limit {10 * most} shows more")


def _fitting(session: Session, found: Any) -> None:
    session.screen.note(f"{found['matched']:,} of {found['examined']:,} open alerts fit")


def _shadow(session: Session, found: Any) -> None:
    if found["mode"] == "shadow":
        session.screen.note("RATE_LIMIT_MODE=shadow: requests are counted but never refused")


def _overrides(session: Session, found: Any) -> None:
    if found["overrides"]:
        _show(ROWS["overrides"], session, {"items": found["overrides"]})
    for each in found.get("people", {}).values():
        if each["quiet"]:
            session.screen.note(_quiet(each))


def _restored(session: Session, found: Any) -> None:
    if found["restored"]:
        session.screen.note("the database was restored: ostoja keys accept-restore")


_THEN: dict[str, Callable[[Session, Any], None]] = {
    "more": _more, "fitting": _fitting, "shadow": _shadow, "overrides": _overrides,
    "restored": _restored,
}  # fmt: skip


def _weekly(given: dict[str, Any]) -> dict[str, Any]:
    """Read `--weekly "sat,sun 02:00 04:00 Europe/Warsaw"`."""
    if "weekly" in given:
        days, *rest = given["weekly"].split()
        if len(rest) != len(_WEEKLY):
            raise Failure(Exit.USAGE, "--weekly: days, begin, end and time zone")
        given["weekly"] = {"days": days.split(","), **dict(zip(_WEEKLY, rest, strict=True))}
    return given


def _one_of_two(given: dict[str, Any]) -> dict[str, Any]:
    if ("email" in given) == ("conversation_id" in given):
        raise Failure(Exit.USAGE, "name either an address or --conversation")
    return given


_BODIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "weekly": _weekly,
    "one_of_two": _one_of_two,
    "limit": lambda given: {given["limit_name"]: " ".join(given["limit"])},
    "no_limits": lambda given: dict.fromkeys(given["limit_names"]),
    "shifts": lambda given: given | {"shifts": list(map(until, given["shifts"]))},
    "unless_false": lambda given: {each: value for each, value in given.items() if value},
}


def param(given: Mapping[str, Any] | str) -> tuple[Any, Any]:
    """Return Typer's annotation and the default."""
    of: Mapping[str, Any] = _TABLE["params"][given] if isinstance(given, str) else given
    kind: Any = _TYPES[of.get("type", "text")]
    if "choices" in of:  # Typer takes no list of literals
        kind = StrEnum("choices", of["choices"]) if of.get("many") else Literal[*of["choices"]]
    elif "default" in of and "type" not in of:
        kind = type(of["default"])
    names = ("help", "min", "max", "metavar", "envvar")
    more = {each: of[each] for each in names if each in of}
    if "time" in of:
        more |= {"parser": _WHEN[of["time"]], "metavar": "TIME"}
    if "argument" in of:
        kind = list[kind] if of.get("many") else kind | None if of.get("optional") else kind
        more["metavar"] = of["argument"] or None
        default = None if of.get("optional") else Parameter.empty
        return Annotated[kind, typer.Argument(show_default=False, **more)], default
    if "default" in of or of.get("required"):
        default = of.get("default", Parameter.empty)
    else:
        kind, default = kind | None, None
    return Annotated[kind, typer.Option(*of.get("flags", ()), **more)], default


def _value(given: str) -> Callable[[Any], Any]:
    if given.startswith("="):
        return _VALUES[given[1:]]
    if given.startswith("when "):
        return lambda each: moment(each.get(given[5:]))
    return given.format_map if "{" in given else lambda each: each.get(given)


def _key(row: Row) -> str:
    return "X-API-KEY" if row.get("service") else "X-ADMIN-API-KEY"


def _path(path: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path with its parameters, and the others."""
    names = re.findall(r"{(\w+)}", path)
    filled = path.format(**{name: quote(str(given[name]), safe="") for name in names})
    return filled, {name: value for name, value in given.items() if name not in names}


def print_list(row: Row, session: Session, **given: Any) -> None:
    """Print a list; one with `limit` page by page, and with --json an item a line."""
    path, given = _path(row["path"], given)
    if "limit" not in given:
        _show(row, session, session.api.get(path, key=_key(row), **given))
        return
    limit: int = given["limit"]
    asked = {**given, "limit": None, "after": "after"} if row.get("fixed") else given
    last: dict[str, Any] = {}

    def items() -> Iterable[Any]:
        for page in session.api.pages(path, key=_key(row), **asked):
            last.update(page)
            yield from page["items"]

    found = list(islice(items(), limit))
    if session.screen.as_json:
        for each in found:
            session.screen.json(each)
    else:
        _show(row, session, {**last, "items": found, "limit": limit})


def _show(row: Row, session: Session, found: Any) -> None:
    if session.screen.is_json(found):
        return
    for line in row.get("lines", ()):
        session.screen.line(_value(line)(found))
    items = _ITEMS[row["items"]](found) if "items" in row else found["items"]
    values = [_value(value) for *_, value in row["columns"]]
    rows = [[value(each) for value in values] for each in items]
    if rows or "empty" not in row:
        columns = [_COLUMNS[kind](title) for kind, title, _ in row["columns"]]
        session.screen.table(columns, rows)
    else:
        session.screen.line(row["empty"])
    if "then" in row:
        _THEN[row["then"]](session, found)


def _act(row: Row, session: Session, **given: Any) -> None:
    """Call the API: parameters that the path does not contain are the body."""
    method, path = row["call"].split()
    path, others = _path(path, given)
    body = row.get("sends", {}) | {
        name: str(value) if isinstance(value, UUID) else value
        for name, value in others.items()
        if value is not None
    }
    if "body" in row:
        body = _BODIES[row["body"]](body)
    elif not body and not row.get("always"):
        body = None
    headers = {"Idempotency-Key": str(uuid4())} if row.get("once") else {}
    answer = session.api.call(method, path, body, key=_key(row), headers=headers)
    if (says := row["says"]).startswith("list "):
        _show(ROWS[says[5:]], session, answer)
    else:
        session.screen.answer(answer, _value(says)({**given, **answer}))


def add(
    app: typer.Typer,
    panel: str,
    *groups: str,
    do: Mapping[str, Callable[..., None]] = MappingProxyType({}),
    **made: typer.Typer,
) -> None:
    """:param do: the functions that the groups name
    :param made: of `leads list` and the like; a list with `group` makes its own
    """
    for first, group in made.items():
        group.callback()(lambda: None)  # otherwise Typer drops the name of an only command
        app.add_typer(group, name=first, rich_help_panel=panel)
    for row in (row for group in groups for row in _TABLE[group]):
        run = (
            do[row["do"]] if "do" in row else partial(print_list if "columns" in row else _act, row)
        )
        RUN[row["name"]] = run
        command = _command(row, run)
        first, _, second = row["name"].partition(" ")
        if row.get("group"):
            made[first] = typer.Typer(invoke_without_command=True)
            made[first].callback()(command)
            app.add_typer(made[first], name=first, rich_help_panel=panel)
        elif second:
            made[first].command(second)(command)
        else:
            app.command(first, rich_help_panel=panel)(command)


def _command(row: Row, run: Callable[..., None]) -> Callable[..., None]:
    def command(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            run(context.obj, **given)

    vars(command)["__signature__"] = Signature(  # which Typer reads
        [
            Parameter("context", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(
                Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
                for name, each in row.get("params", {}).items()
                for kind, default in (param(each),)
            ),
        ]
    )
    command.__doc__ = row["help"]
    return command
