"""Cases on a real ledger without a service: a policy, alerts, a clock that tests move."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any, cast
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Broker
from libs.domain.hours import Hours
from services.alerts.cases.answers import Answers, Refusal
from services.alerts.cases.timer import Timer
from services.alerts.config.targets import Config
from services.alerts.intake import Intake
from services.alerts.messages import AlertAccepted
from services.alerts.rules.case import Answer, Ask, Person, Policy, Rules, Verb, Via
from services.alerts.rules.delivery import Claimed, Kind, Outcome, Reason, decide
from services.alerts.rules.delivery import Policy as Retries
from services.alerts.rules.subjects import Subjects
from services.alerts.store.cases import queries as case_queries
from services.alerts.store.ledger import transitions
from services.alerts.store.ledger.transitions import Attempt
from tests.integration.alerts.conftest import CHANNELS, ROUTES, SUBJECT_KEYS, TARGET

POLICY = Policy(
    asks=("slack",),
    within=900.0,
    hours="always",
    chain=(
        Ask(to="slack", mention="sales", wait=600.0),
        Ask(to="sms", call="sales", wait=900.0),
        Ask(to="email", person="ewa", wait=3600.0),
    ),
)
PEOPLE = {
    "anna": Person("Anna Nowak", "U012ABC", "anna@example.pl", "+48600100200"),
    "ewa": Person("Ewa Lis", None, "ewa@example.pl", "+48600100300"),
}
RULES = Rules({"lead.qualified": POLICY}, {}, PEOPLE, lambda _, __: "anna")
DELIVERED = Outcome(Kind.DELIVERED, Reason.OK, 200)
FAILED = Outcome(Kind.FAILED, Reason.SERVER_ERROR, 500)
NEVER = Outcome(Kind.NEVER, Reason.REFUSED, 422)


@contextmanager
def dies_at(
    monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException] = ConnectionError
) -> Iterator[None]:
    """Let a transaction fail at this step; what is in the block has to raise its error.

    :param step: a function, by its place below services.alerts
    """

    async def dies(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(f"services.alerts.{step}", dies)
        with pytest.raises(error):
            yield


def closed_for_two_days() -> Hours:
    """Return hours that open in two days at 9:00 UTC."""
    today = datetime.now(UTC).date()
    return Hours(
        ZoneInfo("UTC"),
        time(9),
        time(17),
        weekends=True,
        holidays={today, today + timedelta(days=1)},
    )


def answer(verb: Verb = Verb.TAKEN, person: str = "anna", **fields: Any) -> Answer:
    name = PEOPLE[person].name if person in PEOPLE else person
    return Answer(verb, person, name, Via.API, fields.pop("key", str(uuid4())), **fields)


def config() -> Config:
    from services.alerts.config import targets as module

    env = dict.fromkeys(("SLACK_WEBHOOK_URL", "MONDAY_API_URL", "SMS_API_URL"), "https://a.example")
    env |= {"WEBHOOK_URL": "https://a.example", "WEBHOOK_SECRET": "whsec_c2VjcmV0"}
    env |= {"MONDAY_API_TOKEN": "t", "SMS_API_TOKEN": "t", "SMTP_HOST": "h", "SMTP_PORT": "25"}
    targets = {name: TARGET | options for name, options in CHANNELS.items()}
    raw = {"routes": ROUTES | {"heartbeat.missed": ["slack"]}, "targets": targets}
    return Config.model_validate(module._resolve(raw, env, (), _no_fault))


def _no_fault(where: object, text: str) -> None:
    raise AssertionError((where, text))


@dataclass
class Cases:
    engine: AsyncEngine
    rules: Rules = RULES

    def __post_init__(self) -> None:
        configured = config()
        self.intake = Intake(
            configured, self.engine, cast("Broker", None), Subjects(SUBJECT_KEYS), self.rules
        )
        self.timer = Timer(self.engine, self.rules, frozenset(configured.targets))
        self.answers = Answers(self.engine, self.rules)

    async def accept(self, **fields: Any) -> UUID:
        given = {
            "id": uuid4(),
            "event_type": "lead.qualified",
            "payload": {"text": "a lead", "score": 100},
            "source": "followups",
            "accepted_at": datetime.now(UTC),
        }
        return await self.accept_all(given | fields)

    async def accept_all(self, *alerts: dict[str, Any]) -> UUID:
        """Accept alerts in one transaction; the id of the last one."""
        accepted = [AlertAccepted(**each) for each in alerts]
        async with self.engine.begin() as tx:
            await self.intake.accept(tx, accepted, "request-1")
        return accepted[-1].id

    async def answer(self, case_id: UUID, given: Answer) -> dict[str, Any] | Refusal:
        return await self.answers.answer(case_id, given)

    async def take(self, case_id: UUID, person: str = "anna") -> None:
        result = await self.answer(case_id, answer(person=person))
        assert isinstance(result, Mapping), result

    async def tick(self, times: int = 1) -> None:
        """Let the waits be over, and the timer run."""
        for _ in range(times):
            await self.execute("UPDATE alert_case SET next_at = now() WHERE state = 'open'")
            await self.timer.run()

    async def run_out(self, case_id: UUID) -> None:
        await self.tick(len(POLICY.chain) + 1)
        assert (await self.case(case_id)).state == "unanswered"

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as tx:
            await tx.execute(sa.text(statement), values)

    async def rows(self, statement: str, **values: Any) -> list[Any]:
        async with self.engine.connect() as tx:
            return list(await tx.execute(sa.text(statement), values))

    async def case(self, case_id: UUID) -> Any:
        (row,) = await self.rows("SELECT * FROM alert_case WHERE alert_id = :id", id=case_id)
        return row

    async def sees(self, case_id: UUID, **wanted: Any) -> Any:
        """Look at a case: it has these values; its row."""
        row = await self.case(case_id)
        assert {name: getattr(row, name) for name in wanted} == wanted
        return row

    async def steps(self, case_id: UUID) -> list[Any]:
        """Return the steps of a case in their order, each with its delivery."""
        return await self.rows(
            "SELECT case_step.*, state, recalled, delivery.reason, severity FROM case_step"
            " JOIN delivery USING (alert_id, target) WHERE case_id = :id"
            " ORDER BY case_step.generation, number",
            id=case_id,
        )

    async def asked(self, **fields: Any) -> tuple[UUID, Any]:
        """Return a case, and its first step."""
        case_id = await self.accept(**fields)
        await self.tick()
        (step,) = await self.steps(case_id)
        return case_id, step

    async def own(self, alert_id: UUID) -> Any:
        """Return the alert's own delivery to Slack."""
        (row,) = await self.rows(
            "SELECT * FROM delivery WHERE alert_id = :id AND target = 'slack'", id=alert_id
        )
        return row

    async def check(self) -> dict[str, Any]:
        async with self.engine.connect() as tx:
            return await case_queries.check(tx)

    async def claim(self, step: Any, *, lease: float = 60, take_over: bool = False) -> Claimed:
        async with self.engine.begin() as tx:
            (job,) = await transitions.claim(
                tx,
                step.target,
                [(step.alert_id, 100)],
                lease=lease,
                retries=5,
                take_over=take_over,
            )
        assert job is not None
        return job

    async def claimable(self, step: Any, *, take_over: bool = False) -> bool:
        try:
            await self.claim(step, take_over=take_over)
        except AssertionError:
            return False
        return True

    async def settle(self, job: Claimed, outcome: Outcome) -> str | None:
        retries = Retries(retry_delays=(0.001,) * 5, wait_tiers=(0.001,), max_age=3600)
        transition = decide(outcome, attempts=job.attempts, age=job.age, policy=retries)
        async with self.engine.begin() as tx:
            (state,) = await transitions.record(tx, [Attempt(job, outcome, transition, 0.1)])
        return state

    async def balanced(self) -> bool:
        """Return whether both equations hold: of the ledger and of cases."""
        (row,) = await self.rows(
            "SELECT (SELECT sum(accepted) FROM ledger_total) AS accepted,"
            " (SELECT count(*) FROM delivery) AS deliveries,"
            " (SELECT count FROM case_total WHERE term = 'opened') AS opened,"
            " (SELECT count(*) FROM alert_case) AS cases"
        )
        return bool(row.accepted == row.deliveries and row.opened == row.cases)


def with_policy(**changes: Any) -> Rules:
    return replace(RULES, policies={"lead.qualified": replace(POLICY, **changes)})


def soon(seconds: float = 3600) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)
