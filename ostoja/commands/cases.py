"""Cases, the alerts that want an answer: list them, and answer one for a person."""

from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any
from uuid import UUID, uuid4

import typer

from ostoja.commands.oncall import until as _until
from ostoja.show import moment, name, prose
from ostoja.where import Session

PANEL = "Cases"


class State(StrEnum):
    OPEN = "open"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    DONE = "done"
    WON = "won"
    LOST = "lost"
    NOT_A_LEAD = "not_a_lead"
    FALSE_ALARM = "false_alarm"


Id = Annotated[UUID, typer.Argument(metavar="ID", show_default=False)]
Person = Annotated[
    str, typer.Option("--as", metavar="NAME", help="Who answers: a key of [people] in alerts.toml.")
]
Reason = Annotated[str | None, typer.Option(help="Stored with the answer.")]


def add_to(app: typer.Typer) -> None:
    for title, command in (
        ("cases", cases), ("take", take), ("later", later), ("close", close), ("release", release),
    ):  # fmt: skip
        app.command(title, rich_help_panel=PANEL)(command)


def cases(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only those that this person has.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the oldest first.")] = 20,
) -> None:
    """List the alerts that want an answer."""
    session: Session = context.obj
    wanted = {"state": state and state.value, "owner": owner}
    found = list(islice(_pages(session, wanted), limit))
    if session.screen.as_json:
        for each in found:
            session.screen.json(each)
        return
    if not found:
        session.screen.line("none")
        return
    session.screen.table(
        [*map(name, ("Case", "State", "Opened")), prose("Owner, or next step")],
        [
            (
                f"{each['id']}\n{each['event_type']}",
                f"{each['state']}\nstep {each['step']} of {each['steps_in_all']}",
                moment(each["opened_at"]),
                each["owner_name"] or moment(each["next_at"]),
            )
            for each in found
        ],
    )


def _pages(session: Session, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = session.api.get("/api/cases", after=after, **wanted)
        yield from page["items"]
        after = page["next"]
        if after is None:
            return


def take(context: typer.Context, id_: Id, person: Person) -> None:
    """Take a case: no further step of its chain starts. Exit code 1 says who else has it."""
    _answer(context.obj, id_, "taken", person)


def later(
    context: typer.Context,
    id_: Id,
    person: Person,
    until: Annotated[
        str, typer.Option(parser=_until, metavar="TIME", help="Ask again in 2h, or at a time.")
    ],
) -> None:
    """Put a case off: its chain begins anew at that time."""
    _answer(context.obj, id_, "later", person, until=until)


def close(
    context: typer.Context,
    id_: Id,
    outcome: Annotated[Outcome, typer.Argument(show_default=False)],
    person: Person,
    reason: Reason = None,
) -> None:
    """Say how a case ended; one that no one has is taken with it."""
    _answer(context.obj, id_, outcome.value, person, reason=reason)


def release(context: typer.Context, id_: Id, person: Person, reason: Reason = None) -> None:
    """Give a case back: its chain begins anew at once."""
    _answer(context.obj, id_, "release", person, reason=reason)


def _answer(session: Session, id_: UUID, verb: str, person: str, **more: str | None) -> None:
    given = {name: value for name, value in more.items() if value is not None}
    body = {"answer": verb, "by": person, "via": "cli", **given}
    headers = {"Idempotency-Key": str(uuid4())}
    answer = session.api.call("POST", f"/api/cases/{id_}/answer", body, headers=headers)
    owner = f": {answer['owner']} has it" if answer["owner"] else ""
    session.screen.answer(answer, f"{id_} is {answer['state']}{owner}")
