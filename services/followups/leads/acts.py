"""Acts of staff on a lead.

Each is one transaction: the lead, what its history says, the record of acts and the event for Slack
and the CRM. Who acts says which version they saw; if it is not the last, nothing changes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.http.application import CALLER, Problem, there
from libs.common.messaging import outbox
from libs.common.plain import plain
from libs.domain import acts_outbox
from libs.domain.acts import Act
from services.followups import metrics
from services.followups.config import Config
from services.followups.leads import staff
from services.followups.messages import LEAD
from services.followups.rules import score as lead_score
from services.followups.rules.fact_texts import describe_budget, summary
from services.followups.store import acts, leads, sql, steps
from services.followups.store.leads import Lead
from services.followups.store.sql import run
from services.followups.store.tables import Row

MOST_CHANGES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What an act changes."""

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    """Columns of the lead."""
    text: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    told: Sequence[str] = ()
    """What staff read about it; empty: nothing."""
    outcome: str = "done"


Decide = Callable[[Row], Doing | None]
"""Says what to do with a lead, which is locked. None: it is so already."""


@dataclass(frozen=True, eq=False)
class Acts:
    engine: AsyncEngine
    config: Config
    link: staff.Link

    async def do(
        self, headers: Mapping[str, str], action: str, lead_id: UUID, version: int | None,
        decide: Decide, *, ends_followups: bool = False, reason: str | None = None,
    ) -> Row:  # fmt: skip
        """:raises Problem: 404; 409 it has changed since this version"""
        by, stopped = who(headers), []
        async with self.engine.begin() as tx:
            row = there(await sql.row(tx, "lead", id=lead_id), "lead")
            here, email = row["conversation_id"], row["known"].get("email")
            # The follow-ups of a request that follows it go on.
            if ends := ends_followups and row["next"] is None:
                # Lock order: a conversation before its lead.
                ending = {"conversation": here, "email": email, "reason": "staff"}
                await run(tx, "end_followups", **ending)
            row = await self._locked(tx, lead_id, version)
            if (doing := decide(row)) is not None:
                values = {**doing.values, **await self._tell(tx, row, doing, by)}
                if row["reminded_at"] and "call_at" in doing.values:
                    now = datetime.now(UTC)
                    over = staff.remind(self.config, self.link, row, now, over=True)
                    await outbox.add_all(tx, [over])
                await acts.add(
                    tx, row, values, kind=doing.kind, by=by, text=doing.text, data=doing.data
                )
            if ends:
                stopped = await steps.stop(tx, "staff", here, email=email)
            outcome = doing.outcome if doing else "unchanged"
            act = Act.of(headers, action, "lead", str(lead_id), reason=reason, outcome=outcome)
            await acts_outbox.add(tx, act)
            done = there(await sql.row(tx, "lead", id=lead_id), "lead")
        metrics.ENDED.labels("cancelled").inc(len(stopped))
        return done

    async def undo(self, headers: Mapping[str, str], lead_id: UUID, version: int | None) -> Row:
        """Reopen a lead as it was before it was closed. Its follow-ups stay ended.

        :raises Problem: 409 its last change of state closed nothing, or another request follows it
        """
        async with self.engine.connect() as tx:
            last = await sql.row(tx, "acts", lead=lead_id, after=0, kind="state", limit=1)

        def decide(row: Row) -> Doing:
            state = row["state"]
            if state in acts.OPEN or row["next"] or not last or last["data"]["after"] != state:
                raise Problem(409, detail="nothing to undo: it is open, or another request follows")
            before, owner = last["data"]["before"], last["data"].get("owner")
            owner = owner if before == "taken" else None
            changed = acts.in_state(row, before, who(headers), datetime.now(UTC), owner=owner)
            changed |= {"order_value": None, "order_currency": None}
            data = {"before": state, "after": before, "undo": True}
            told = [self.words[before]]
            return Doing(kind="state", values=changed, data=data, told=told, outcome=before)

        return await self.do(headers, "lead.undo", lead_id, version, decide)

    @property
    def words(self) -> dict[str, str]:
        return staff.WORDS[self.config.staff_language]

    def value(self, amount: int, currency: str) -> str:
        shown = describe_budget(amount, currency, self.config.staff_language)
        return self.words["value"].format(value=shown)

    def facts(self, known: Mapping[str, Any]) -> str:
        line = summary(known, self.config.staff_language)
        return " · ".join(filter(None, (known.get("name"), line))) or "-"

    def clock(self, at: datetime) -> str:
        return f"{at.astimezone(self.config.hours.zone):%d.%m.%Y %H:%M}"

    async def _locked(self, tx: AsyncConnection, lead_id: UUID, version: int | None) -> Row:
        row = there(await sql.row(tx, "lock_lead", id=lead_id), "lead")
        if version is None or version == row["revision"]:
            return row
        asked = {"lead": lead_id, "after": version, "kind": None, "limit": MOST_CHANGES}
        names = ("kind", "by", "at", "text")
        changes = [
            {name: plain(each[name]) for name in names} | each["data"]
            for each in reversed(await sql.rows(tx, "acts", **asked))
        ]
        told = "; ".join(f"{each['by']}: {each['kind']}" for each in changes)
        raise Problem(
            409,
            detail=f"it has changed: {told or 'the person added to it'}",
            members={"version": row["revision"], "changes": changes},
        )

    async def _tell(
        self, tx: AsyncConnection, row: Row, doing: Doing, by: str
    ) -> Mapping[str, Any]:
        """Put the event into the outbox, with all that is new.

        :returns: the columns that say what staff know. They have no event before the first one
        """
        lead = Lead.of({**row, **doing.values})
        told = bool(doing.told) and lead.topic == LEAD and lead.notified is not None
        if not told:
            return {"score": lead_score.score(lead.known, self.config.rules).points}
        said = self.words["by"].format(by=by, act=", ".join(doing.told))
        lines = list(filter(None, (said, doing.text)))
        now = datetime.now(UTC)
        saved, event = staff.announce(self.config, self.link, lead, None, now, act=lines)
        await outbox.add_all(tx, [event])
        names = ("score", "notified", "said", "heard", "version", "due_at")
        return {name: getattr(saved, name) for name in names}


def who(headers: Mapping[str, str]) -> str:
    by = headers.get("X-Operator") or headers.get(CALLER) or "staff"
    return (leads.person(by) or by)[:200]
