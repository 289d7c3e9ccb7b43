"""The table of lists, and of the acts on what they list."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import typer

from ostoja.commands.table import Act, List, ago, until, when
from ostoja.failure import Exit, Failure
from ostoja.show import count, moment, name, prose, span
from ostoja.where import Session

SERVICE_KEY = "X-API-KEY"


def option(help_: str | None = None, *flags: str, kind: Any = str, **more: Any) -> tuple[Any, None]:
    """Return an optional option."""
    return Annotated[kind | None, typer.Option(*flags, help=help_, **more)], None


def needed(help_: str | None, *flags: str, kind: Any = str, **more: Any) -> Any:
    return Annotated[kind, typer.Option(*flags, help=help_, **more)]


def argument(
    metavar: str | None = None, help_: str | None = None, kind: Any = str, **more: Any
) -> Any:
    return Annotated[kind, typer.Argument(metavar=metavar, help=help_, **more)]


def limit(help_: str | None = None) -> tuple[Any, int]:
    return Annotated[int, typer.Option(min=1, help=help_)], 20


OLDEST = limit("At most this many, the oldest first.")
ID = argument("ID", kind=UUID, show_default=False)
TIME: dict[str, Any] = {"parser": until, "metavar": "TIME"}
AT = "In 2h, or at a time."
FILTERS = {
    "target": option("Only for this target."),
    "event_type": option("Only of this event type."),
    "since": option("Accepted since: 2h, or a time.", parser=ago, metavar="TIME"),
    "until": option("Accepted before: 2h, or a time.", parser=ago, metavar="TIME"),
}


# Alerts


def _alerts(which: str, help_: str) -> List:
    ends = "next_attempt_at" if which == "pending" else "finished_at"
    return List(
        which, help_, f"/api/dlq/{which}",
        [
            (prose("Alert"), lambda row: f"{row['id']}\n{_why(row)}"),
            (name("Target"), "target"),
            (count("Tries"), "attempts"),
            (name("Accepted"), when("created_at")),
            (name("Next try" if which == "pending" else "Ended"), when(ends)),
        ],
        {**FILTERS, "limit": OLDEST}, empty="none", then=_more,
    )  # fmt: skip


def _more(session: Session, found: Any) -> None:
    if found["next_cursor"] is not None:
        most = found["limit"]
        session.screen.note(f"these are the oldest {most:,}; --limit {10 * most} shows more")


def _why(row: Mapping[str, Any]) -> str:
    why = reason_of(row)
    return f"{row['event_type']}: {why}" if why else str(row["event_type"])


def reason_of(row: Mapping[str, Any]) -> str:
    why, message = row["reason"] or "", row["error_message"] or ""
    return message if message.startswith(why) else f"{why}: {message}"


def _oldest(row: Any) -> str | None:
    seconds = row[1]["oldest_pending_seconds"]
    return span(seconds) if seconds else None


def _of_target(field: str) -> Callable[[Any], Any]:
    return lambda row: row[1][field]


_COUNTED = ("Pending", "Failed", "In doubt", "Delivered", "Discarded", "Duplicates")
ALERTS = (
    _alerts("pending", "List alerts that wait to be sent or retried."),
    _alerts("failed", "List alerts that failed; on-call was notified."),
    _alerts("silenced", "List alerts that a silence has held back."),
    _alerts("in-doubt", "List e-mails whose delivery outcome is unknown; resolve each."),
    List(
        "stats", "Count alerts by target.", "/api/dlq/stats",
        [
            (name("Target"), lambda row: row[0]),
            *((count(title), _of_target(title.lower().replace(" ", "_"))) for title in _COUNTED),
            (name("Oldest"), _oldest),
        ],
        items=lambda found: [*sorted(found["targets"].items()), ("all", found)],
    ),
)  # fmt: skip
REPLAY = Act(
    "replay", "Send again what a target has accepted; --dry-run only counts.",
    "POST /api/alerts/replay", "{matched:,} match, {requeued:,} are sent again",
    {
        "target": needed("The target."),
        "since": needed("Delivered since: 2h, or a time.", parser=ago, metavar="TIME"),
        "until": (needed("Delivered before: 2h, or a time.", parser=ago, metavar="TIME"), "0s"),
        "event_type": FILTERS["event_type"],
        "dry_run": (needed("Only count.", "--dry-run", kind=bool), False),
    },
)  # fmt: skip
RESOLVE = Act(
    "resolve", "Resolve an e-mail in doubt: it arrived, it is sent again, or it is discarded.",
    "POST /api/dlq/resolve", "{id}: {outcome}",
    {
        "id": ID,
        "outcome": needed(
            "What happened to it.", "--as", kind=Literal["delivered", "resend", "discarded"]
        ),
        "reason": needed("How you know, for the audit record."),
        "target": FILTERS["target"],
    },
)  # fmt: skip


# Cases


def _owned(found: Any) -> str:
    owner = f": {found['owner']} has it" if found["owner"] else ""
    return f"{found['id']} is {found['state']}{owner}"


def _answer(title: str, verb: str | None, help_: str, **params: Any) -> Act:
    """:param verb: else the parameter `answer` is it"""
    fixed = {"answer": verb} if verb else {}
    return Act(
        title, help_, "POST /api/cases/{id}/answer", _owned, {"id": ID, **params},
        headers=lambda: {"Idempotency-Key": str(uuid4())},
        body=lambda given: {**fixed, **given, "via": "cli"},
    )  # fmt: skip


def _silenced(each: Any) -> str:
    lines = [*each["matchers"], *(["critical too"] if each["critical"] else [])]
    if weekly := each["weekly"]:
        lines.append("{0} {begins} to {ends} {zone}".format(" ".join(weekly["days"]), **weekly))
    return "\n".join(lines)


def _weekly(given: dict[str, Any]) -> dict[str, Any]:
    """Read `--weekly "sat,sun 02:00 04:00 Europe/Warsaw"`."""
    if "weekly" in given:
        days, *rest = given["weekly"].split()
        if len(rest) != len(("begins", "ends", "zone")):
            raise Failure(Exit.USAGE, "--weekly: days, begin, end and time zone")
        names = dict(zip(("begins", "ends", "zone"), rest, strict=True))
        given["weekly"] = {"days": days.split(","), **names}
    return given


_MATCHERS = argument("MATCHER...", "As event_type=backup.failed or payload.host=~web-.*", list[str])
_CRITICAL = (needed("Critical alerts, too.", "--critical", kind=bool), False)


_PERSON = needed("Who answers: a key of `people` in alerts.toml.", "--as", metavar="NAME")
_REASON = option("Stored with the answer.")
CASES = (
    List(
        "cases", "List the alerts that want an answer.", "/api/cases",
        [
            (name("Case"), lambda each: f"{each['id']}\n{each['event_type']}"),
            (
                name("State"),
                lambda each: f"{each['state']}\nstep {each['step']} of {each['steps_in_all']}",
            ),
            (name("Opened"), when("opened_at")),
            (
                prose("Owner, or next step"),
                lambda each: each["owner_name"] or moment(each["next_at"]),
            ),
        ],
        {
            "state": option(
                "Only those in this state.",
                kind=Literal["open", "answered", "unanswered", "cancelled"],
            ),
            "owner": option("Only those that this person has."),
            "limit": OLDEST,
        },
        fixed=True, empty="none",
    ),
    _answer(
        "take", "taken",
        "Take a case: no further step of its chain starts. Exit code 1 says who else has it.",
        by=_PERSON,
    ),
    _answer(
        "later", "later", "Put a case off: its chain restarts at that time.",
        by=_PERSON, until=needed("Ask again in 2h, or at a time.", **TIME),
    ),
    _answer(
        "close", None, "Say how a case ended; one that no one has is taken with it.",
        answer=argument(
            "outcome", None, Literal["done", "won", "lost", "not_a_lead", "false_alarm"],
            show_default=False,
        ),
        by=_PERSON, reason=_REASON,
    ),
    _answer(
        "remind", "remind", "Remind the owner at that time, unless it is settled by then.",
        by=_PERSON, until=needed("In 30m, or at a time.", "--in", **TIME),
    ),
    _answer(
        "hand-over", "hand_over", "Hand a case over to a colleague, who is told.",
        by=_PERSON, to=needed("The colleague: a key of `people`.", "--to", metavar="NAME"),
        reason=_REASON,
    ),
    _answer(
        "release", "release", "Give a case back: its chain restarts at once.",
        by=_PERSON, reason=_REASON,
    ),
    List(
        "silence",
        "List the silences, or make one: alerts that wait, and are asked about at its end.",
        "/api/silences",
        [
            (count("Silence"), "id"),
            (name("Alerts"), _silenced),
            (name("Runs until"), when("active_until")),
            (name("Ends"), when("ends")),
            (prose("Why"), lambda each: f"{each['by']}: {each['why']}"),
        ],
        group=True, empty="none",
    ),
    Act(
        "silence add",
        "Send no alerts that fit until then; cases are asked about when the silence ends.",
        "POST /api/silences", "silence {id}: {matchers}",
        {
            "matchers": _MATCHERS,
            "ends": needed(AT, "--until", **TIME),
            "why": needed("Shown beside the silence."),
            "critical": _CRITICAL,
            "begins": option("In 2h, or at a time; else now.", "--from", **TIME),
            "weekly": option('Only then: "sat,sun 02:00 04:00 Europe/Warsaw".'),
        },
        body=_weekly,
    ),
    Act(
        "silence preview", "Show how many open alerts a silence would fit; it makes none.",
        "POST /api/silences/preview", List(
            "silence preview", "", "",
            [(name("Alert"), "id"), (name("Event"), "event_type"), (name("Target"), "target")],
            empty="no open alert fits",
            then=lambda session, found: session.screen.note(
                f"{found['matched']:,} of {found['examined']:,} open alerts fit"
            ),
        ),
        {"matchers": _MATCHERS, "critical": _CRITICAL},
    ),
    Act(
        "silence end", "End a silence now: its cases are asked about at once.",
        "DELETE /api/silences/{number}", "silence {number} is over, {cases} cases are due",
        {"number": argument("SILENCE", kind=int, min=1, show_default=False)},
    ),
)  # fmt: skip


# Heartbeats


def _when(each: Any) -> str:
    zone = f" {each['timezone']}" if each["timezone"] else ""
    return str(each["every"] or each["cron"] or each["event_type"]) + zone


_HEARTBEAT = argument("ID", show_default=False)
HEARTBEATS = (
    List(
        "heartbeats", "List the jobs that are to ping in time, or make and change one.",
        "/api/heartbeats",
        [
            (name("Heartbeat"), lambda each: f"{each['id']}\n{each['name']}"),
            (name("State"), "state"),
            (prose("When"), _when),
            (name("Due"), when("due_at")),
        ],
        group=True, empty="none",
    ),
    Act(
        "heartbeats create",
        "Watch a job: print the URL that it calls when it succeeds, with /fail when it does not.",
        "POST /api/heartbeats", "{url}",
        {
            "name": argument("NAME", show_default=False),
            "grace": needed("How late it may be: 10m, 1h.", "--grace"),
            "every": option("How often it runs: 5m, 1h, 1d."),
            "cron": option('Or when: "30 3 * * 1-5".'),
            "timezone": option("Of the cron line, as Europe/Warsaw; else UTC."),
            "severity": option("Of its alerts: info, warning or critical."),
        },
    ),
    Act(
        "heartbeats show", "Print the URL of a heartbeat; --json has its last pings.",
        "GET /api/heartbeats/{heartbeat}", "{name} is {state}\n{url}", {"heartbeat": _HEARTBEAT},
    ),
    Act(
        "heartbeats pause", "Stop watching a job for a while; what it was alerted about is over.",
        "PATCH /api/heartbeats/{heartbeat}", "{name} is {state}", {"heartbeat": _HEARTBEAT},
        body=lambda _: {"paused": True},
    ),
    Act(
        "heartbeats resume", "Watch a job again, from now on.",
        "PATCH /api/heartbeats/{heartbeat}", "{name} is {state}", {"heartbeat": _HEARTBEAT},
        body=lambda _: {"paused": False},
    ),
    Act(
        "heartbeats rotate", "Give a job another URL; the one before counts no more.",
        "POST /api/heartbeats/{heartbeat}/rotate", "{url}", {"heartbeat": _HEARTBEAT},
    ),
    Act(
        "heartbeats delete", "Delete a heartbeat with its pings.",
        "DELETE /api/heartbeats/{heartbeat}", "{deleted} is deleted", {"heartbeat": _HEARTBEAT},
    ),
)  # fmt: skip


# Targets and traffic


def _paused(row: Any) -> str | None:
    paused = row[1].get("paused")
    return "yes" if paused is True else paused or None


BREAKERS = List(
    "breakers", "Show the circuit breaker of each target, or reset one.", "/api/breakers",
    [
        (name("Target"), lambda row: row[0]),
        (name("Breaker"), lambda row: row[1]["state"]),
        (count("Failures"), lambda row: row[1]["failures"]),
        (name("Unhealthy since"), lambda row: moment(row[1].get("open_since"))),
        (name("Next trial"), lambda row: moment(row[1]["next_trial_at"])),
        (name("Paused"), _paused),
        (count("Processes"), lambda row: row[1].get("processes")),
    ],
    group=True, items=lambda found: sorted(found.items()),
)  # fmt: skip
WHOM = {
    "chat": "chat, per client",
    "minute": "everything else, per client",
    "hour": "everything else, per client",
    "service": "all calls with one key",
    "chat_budget": "chat, all clients",
    "write_budget": "opt-ins, all clients",
    "withdrawal_budget": "withdrawals, all clients",
}
_Limit = StrEnum(
    "_Limit", ["chat", "minute", "hour", "chat_budget", "write_budget", "withdrawal_budget"]
)


def _shadow(session: Session, found: Any) -> None:
    if found["mode"] == "shadow":
        session.screen.note("RATE_LIMIT_MODE=shadow: requests are counted but never refused")


LIMITS = List(
    "limits", "Show the rate limits in force, or change them.", "/api/ratelimits",
    [
        (name("Limit"), lambda row: row[0]),
        (name("In force"), lambda row: row[1]),
        (name("From"), lambda row: row[2]),
        (prose("Applies to"), lambda row: WHOM[row[0]]),
    ],
    group=True, items=lambda found: [(each, found[each], found["sources"][each]) for each in WHOM],
    then=_shadow,
)  # fmt: skip
TRAFFIC = (
    BREAKERS,
    Act(
        "breakers reset",
        "Close a breaker manually: alerts that wait for the target are tried at once.",
        "POST /api/breakers/{target}/reset", BREAKERS,
        {"target": argument(None, "As `ostoja breakers` shows it.")},
    ),
    LIMITS,
    Act(
        "limits set", "Change a limit on all gateways within seconds, until it is cleared.",
        "PUT /api/ratelimits", LIMITS,
        {
            "limit_name": argument("NAME", "As `ostoja limits` shows it.", _Limit),
            "limit": argument("LIMIT", "For example 60 per minute.", list[str]),
        },
        body=lambda given: {given["limit_name"]: " ".join(given["limit"])},
    ),
    Act(
        "limits clear", "Restore the configured limit.", "PUT /api/ratelimits", LIMITS,
        {"limit_names": argument("NAME...", "As `ostoja limits` shows them.", list[_Limit])},
        body=lambda given: dict.fromkeys(given["limit_names"]),
    ),
    Act(
        "cache purge",
        "Remove expired entries from the local cache of the gateway process that answers.",
        "POST /api/cache/cleanup", "removed {purged:,}",
    ),
)  # fmt: skip


# People


def _about(lead: Any) -> str:
    topic = [] if lead["topic"] == "lead" else [lead["topic"]]
    who = lead["name"] or lead["phone"] or lead["email"] or "unknown"
    return ", ".join([*topic, who, *filter(None, (lead["city"], lead["wish"]))])


def _said(lead: Any) -> str:
    return ", ".join(f"{field}: {value}" for field, value in lead["fields"].items())


_Lead = Literal["new", "taken", "won", "lost", "not_a_lead"]
_LEAD = argument(None, "The lead's id.")
_VERSION = option("Refuse if the lead has changed since this version.", kind=int, min=0)


def _act(title: str, help_: str, path: str, says: str, **params: Any) -> Act:
    """An act on one lead."""
    return Act(
        f"leads {title}", help_, f"POST /api/leads/{{lead}}/{path}", says,
        {"lead": _LEAD, **params, "version": _VERSION}, SERVICE_KEY, body=dict,
    )  # fmt: skip


_SUSPECT = argument("ID", "As `ostoja forms suspected` prints it.")
LEADS = (
    List(
        "leads list", "List leads and other requests, newest first. Needs the service key.",
        "/api/leads",
        [
            (name("Id"), "id"),
            (name("Since"), when("created_at")),
            (name("State"), "state"),
            (count("Score"), "score"),
            (prose("Contact and request"), _about),
        ],
        {
            "state": option("Only those in this state.", kind=_Lead),
            "topic": option("lead, complaint, …"),
            "q": option("Parts of a name, a number, or of what was said.", "--find"),
            "since": option("ISO 8601, with an offset."),
            "limit": limit(),
        },
        SERVICE_KEY,
    ),
    _act(
        "set", "Set a lead's state; every state but new stops its follow-ups.", "state",
        "{id} is {state}",
        state=argument(kind=_Lead), reason=option("Stored with the lead."),
        order_value=option("What a won lead ordered.", "--value", kind=int),
        order_currency=option(None, "--currency"),
    ),
    _act("undo", "Reopen a closed lead as it was.", "undo", "{id} is {state}"),
    _act(
        "assign", "Say who has a lead.", "owner", "{owner} has {id}",
        owner=argument(None, "A colleague's name."),
    ),
    _act("note", "Add a note to a lead.", "notes", "noted, version {version}", text=argument()),
    _act(
        "call", "Note a call, or plan one.", "calls", "noted, version {version}",
        result=option("How it went.", kind=Literal["no_answer", "reached", "not_needed"]),
        at=option(f"Call again. {AT}", **TIME), note=option(),
    ),
    _act(
        "edit", "Correct a lead's facts.", "facts", "corrected, version {version}",
        **{each: option() for each in ("name", "city", "wish", "area", "budget", "start")},
    ),
    List(
        "forms suspected", "List leads that look like a robot's. Needs the service key.",
        "/api/leads/suspected",
        [
            (name("Id"), "id"),
            (name("Sent"), when("accepted_at")),
            (name("Form"), "form"),
            (name("Why"), "suspicion"),
            (prose("What it says"), _said),
        ],
        {"limit": OLDEST}, SERVICE_KEY,
    ),
    Act(
        "forms release",
        "Take a suspected lead after all: staff are told, and its consent is recorded.",
        "POST /api/leads/suspected/{lead}/release", "{id} is {state}", {"lead": _SUSPECT},
        SERVICE_KEY,
    ),
    Act(
        "forms discard", "Delete what a suspected lead says.",
        "POST /api/leads/suspected/{lead}/discard", "{id} is {state}", {"lead": _SUSPECT},
        SERVICE_KEY,
    ),
)  # fmt: skip


def _overrides(session: Session, found: Any) -> None:
    if found["overrides"]:
        titles = [count("Override"), *map(name, ("Schedule", "Person", "Begins", "Ends"))]
        session.screen.table(
            [*titles, prose("Why")],
            [
                (
                    *(each[field] for field in ("id", "schedule", "person")),
                    *(moment(each[field]) for field in ("begins", "ends")),
                    ": ".join(filter(None, (each["by"], each["why"]))),
                )
                for each in found["overrides"]
            ],
        )


ON_CALL = (
    List(
        "oncall", "Show who is on call in each schedule, or put another person on call for a time.",
        "/api/oncall",
        [
            (name("Schedule"), lambda row: row[0]),
            (name("On call"), lambda row: row[1]["name"]),
            (name("By"), lambda row: row[1]["rule"]),
            (name("Until"), lambda row: moment(row[1]["until"])),
            (prose("Fault"), lambda row: row[1]["fault"]),
        ],
        group=True, items=lambda found: sorted(found["schedules"].items()), then=_overrides,
    ),
    Act(
        "oncall override", "Put a person on call for a time, whatever the schedule's file says.",
        "POST /api/oncall/overrides", "override {id}: {person} is on call for {schedule}",
        {
            "schedule": argument(show_default=False),
            "person": argument(None, "A key of `people` in alerts.toml.", show_default=False),
            "ends": needed(AT, "--until", **TIME),
            "begins": option("In 2h, or at a time; else now.", "--from", **TIME),
            "why": option("Shown beside the override."),
        },
    ),
    Act(
        "oncall swap", "Swap two shifts: each person stands in for the other.",
        "POST /api/oncall/swaps", "{schedule}: swapped by the overrides {ids[0]} and {ids[1]}",
        {
            "schedule": argument(show_default=False),
            "shifts": argument("TIME TIME", "A time in each shift.", list[str]),
            "why": option("Shown beside the overrides."),
        },
        body=lambda given: given | {"shifts": list(map(until, given["shifts"]))},
    ),
    Act(
        "oncall remove", "Remove an override: the schedule's file counts again.",
        "DELETE /api/oncall/overrides/{number}", "override {number} is removed",
        {"number": argument("OVERRIDE", kind=int, min=1, show_default=False)},
    ),
)  # fmt: skip


def _restored(session: Session, found: Any) -> None:
    if found["restored"]:
        session.screen.note("the database was restored: ostoja keys accept-restore")


KEYS = List(
    "keys", "List the API keys, or make, rotate and revoke one.", "/api/keys",
    [
        (name("Key"), "id"),
        (name("State"), "state"),
        (name("Ends"), lambda each: moment(each["revoked_at"] or each["expires_at"])),
        (name("Last used"), when("last_used_at")),
        (count("Calls"), "calls"),
        (prose("Name, owner"), lambda each: f"{each['name']}, {each['owner']}"),
        (prose("Scopes"), lambda each: "\n".join(each["scopes"])),
    ],
    group=True, then=_restored,
)  # fmt: skip


def _state(each: Any) -> str:
    if each["disabled"]:
        return "disabled"
    return "joined" if each["joined"] else "invited"


def _link(answer: Any) -> str:
    return answer["link"] or "The link was mailed to the person."


def _who(act: Any) -> str:
    who = act["actor_name"] or act["actor_id"]
    return who if act["actor_kind"] == "staff" else f"{who} ({act['actor_id']})"


_PERSON_ID = argument("ID", show_default=False)
_ROLES = needed("viewer, sales, ops, privacy or admin; repeat for more.", "--role", kind=list[str])
_SHOW = (
    needed("Print it instead of mailing it; every admin is told.", "--show-link", kind=bool), False,
)  # fmt: skip


def _unless_false(given: dict[str, Any]) -> dict[str, Any]:
    return {each: value for each, value in given.items() if value is not False}


STAFF = (
    List(
        "staff", "List who may enter the console, or invite, change and disable people.",
        "/api/staff",
        [
            (name("Person"), "id"),
            (prose("Name"), "name"),
            (prose("E-mail"), "email"),
            (prose("Roles"), lambda each: ", ".join(each["roles"])),
            (name("State"), _state),
        ],
        group=True,
    ),
    Act(
        "staff invite",
        "Mail a person a link with which they set a password; valid once, for 24 hours.",
        "POST /api/staff", _link,
        {
            "email": argument("EMAIL", show_default=False),
            "roles": _ROLES,
            "name": needed("As colleagues know them.", "--name"),
            "language": (needed("pl or en."), "pl"),
            "show_link": _SHOW,
        },
        body=_unless_false,
    ),
    Act(
        "staff invite-again",
        "Mail a person a new link, for a lost link or password; the earlier one ends.",
        "POST /api/staff/{person}/invitation", _link, {"person": _PERSON_ID, "show_link": _SHOW},
        body=_unless_false,
    ),
    Act(
        "staff roles", "Give a person these roles instead of theirs, from their next request on.",
        "POST /api/staff/{person}/roles",
        lambda found: f"{found['person']} has {', '.join(found['roles'])}",
        {"person": _PERSON_ID, "roles": _ROLES},
    ),
    Act(
        "staff reset-factor",
        "Remove the second factor of a person who has lost it; they and every admin are told.",
        "POST /api/staff/{person}/reset-factor", "{person} has no second factor now",
        {"person": _PERSON_ID}, body=dict,
    ),
    Act(
        "staff disable", "Disable a person; their sessions end now.",
        "POST /api/staff/{person}/disable", "{person} is disabled",
        {"person": _PERSON_ID, "reason": needed("For the record; name no person.")},
    ),
    List(
        "actions", "Show who did what: with alerts, leads, persons' data, limits, keys and people.",
        "/api/actions",
        [
            (name("When"), when("at")),
            (prose("Who"), _who),
            (name("Act"), "action"),
            (name("On"), "object_ref"),
            (prose("Why"), lambda act: act["reason"] or ""),
        ],
        {
            "limit": limit(),
            "actor": option("The id of a person or a key.", "--who"),
            "action": option("Such as alert.discard.", "--act"),
            "day": option("Such as 2026-11-27."),
        },
    ),
)  # fmt: skip


def _whom(given: dict[str, Any]) -> dict[str, Any]:
    if ("email" in given) == ("conversation_id" in given):
        raise Failure(Exit.USAGE, "name either an address or --conversation")
    return given


STOP = Act(
    "followups stop",
    "Stop the follow-ups to an address in all conversations. Needs the service key.",
    "POST /api/followups/stop", "cancelled {cancelled:,}",
    {
        "reason": needed(
            "reply: they answered elsewhere; staff: a colleague took over; "
            "bounce: the address accepts no mail.",
            kind=Literal["reply", "staff", "bounce"],
        ),
        "email": (argument(None, None, str | None, show_default=False), None),
        "conversation_id": option(
            "The conversation, instead of the address.", "--conversation", kind=UUID
        ),
    },
    SERVICE_KEY, body=_whom,
)  # fmt: skip
