"""Orders of events that the model of cases names, forced by a transaction that is held open.

The rules are those of docs/models/answer.pml; what breaks when one is left out is in
docs/architecture.md.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy.exc import InterfaceError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.messaging.broker import Broker
from libs.common.messaging.consumer import Ack, Retry
from libs.domain.acts import Act
from libs.domain.acts_outbox import Counted
from services.alerts.cases.timer import Updates
from services.alerts.channels import Channel
from services.alerts.delivery import case_messages
from services.alerts.delivery.worker import Worker
from services.alerts.http.dlq import DlqRoutes
from services.alerts.messages import AlertDead
from services.alerts.rules.case import Answer, Change, State, Verb
from services.alerts.rules.delivery import Claimed, Outcome
from services.alerts.store.cases import cases as store
from services.alerts.store.incidents import Way
from services.alerts.store.ledger import upkeep
from services.alerts.upkeep.reconcile import Reconciler
from tests.integration.alerts.cases import (
    DELIVERED,
    NEVER,
    RULES,
    Cases,
    answer,
    config,
    soon,
)
from tests.integration.alerts.conftest import CHANNELS, waits_for_a_row
from tests.integration.alerts.test_at_least_once import TAKEN, Slow, a_worker, handle
from tests.support.eventually import eventually

pytestmark = pytest.mark.promise("P9")

CRITICAL: dict[str, Any] = {"severity": "critical"}
TAKEN_BY_ANNA = Change(State.ANSWERED, "anna", "Anna Nowak")


class Races(Cases):
    """Cases, and whatever else changes their deliveries."""

    async def due(self) -> None:
        await self.execute("UPDATE alert_case SET next_at = now()")

    async def asked(self, **fields: Any) -> tuple[UUID, Any]:
        """Return a case, whose alert was delivered, and its first step."""
        case_id = await self.accept(**fields)
        await self.settle(await self.claim(await self.own(case_id)), DELIVERED)
        await self.tick()
        (step,) = await self.steps(case_id)
        return case_id, step

    def reconciler(self) -> Reconciler:
        broker = cast("Broker", SimpleNamespace(connected=False))
        return Reconciler(config(), self.engine, broker, {}, overdue=60, fallback_after=60)

    async def fall_back(self) -> None:
        await self.reconciler()._move(Way("slack", "email", after=0))

    async def places(self, alert_id: UUID) -> dict[str, Any]:
        found = await self.rows("SELECT * FROM case_place WHERE alert_id = :id", id=alert_id)
        return {row.target: row for row in found}

    async def update(self) -> list[Any]:
        """Order updates; return all that were ordered."""
        await Updates(self.engine, frozenset(CHANNELS)).run()
        return await self.rows(
            "SELECT * FROM delivery WHERE event_type = 'case.update' ORDER BY created_at"
        )

    def worker(self, channel: Channel, **settings: Any) -> Worker:
        worker, _ = a_worker(self.engine, channel, **settings)
        app = {"channel": "slack", "token": SecretStr("xoxb-1")}
        worker.target = worker.target.model_copy(update=app)
        worker.rules = RULES
        return worker


@pytest.fixture
def subject(engine: AsyncEngine) -> Races:
    return Races(engine)


@asynccontextmanager
async def held(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    name: str,
    running: Awaitable[Any],
) -> AsyncIterator[None]:
    """Stop `running` in its transaction, after its first call of this function, until the exit."""
    called, may_go_on = asyncio.Event(), asyncio.Event()
    original = getattr(module, name)

    async def stops(*args: Any, **named: Any) -> Any:
        found = await original(*args, **named)
        if not called.is_set():
            called.set()
            await may_go_on.wait()
        return found

    monkeypatch.setattr(module, name, stops)
    task = asyncio.ensure_future(running)
    reached = asyncio.create_task(called.wait())
    await asyncio.wait((task, reached), return_when=asyncio.FIRST_COMPLETED)
    assert called.is_set(), await task
    try:
        yield
    finally:
        may_go_on.set()
        await task


async def ended_or_waiting(subject: Races, task: asyncio.Task[Any]) -> None:
    """Wait until the task is over, or waits for a lock that another holds."""
    await eventually(lambda: waits_for_a_row(subject.engine), so=lambda found: task.done() or found)


ENDS = {
    "taken": answer(),
    "later": answer(Verb.LATER, until=soon()),
    "cancel": answer(Verb.CANCEL, admin=True, reason="a test"),
}


@pytest.mark.parametrize("given", ENDS.values(), ids=ENDS)
async def test_an_answer_waits_for_a_timer_that_has_read_its_case(
    subject: Races, monkeypatch: pytest.MonkeyPatch, given: Answer
) -> None:
    """Rule ROW: what a timer has read holds until it has acted."""
    case_id = await subject.accept()
    await subject.due()
    async with held(monkeypatch, store, "now", subject.timer.run()):
        answering = asyncio.create_task(subject.answers.answer(case_id, given))
        await ended_or_waiting(subject, answering)
    assert isinstance(await answering, Mapping)
    assert [step.state for step in await subject.steps(case_id)] == ["discarded"]
    row = await subject.case(case_id)
    assert (row.owner is not None, row.step) == (
        given.verb is Verb.TAKEN,
        0 if given.verb is Verb.LATER else 1,
    )


async def test_a_fallback_waits_for_an_answer_before_it_touches_the_step(subject: Races) -> None:
    """Rule CREATE: the case, then its deliveries; the other way round the two deadlock."""
    case_id, step = await subject.asked(**CRITICAL)
    async with subject.engine.begin() as tx:
        row = await store.lock(tx, case_id)
        falling = asyncio.create_task(subject.fall_back())
        await eventually(lambda: waits_for_a_row(subject.engine))
        await store.change(tx, row, TAKEN_BY_ANNA)
    await falling
    rows = await subject.rows("SELECT * FROM delivery WHERE alert_id = :id", id=step.alert_id)
    assert [(each.target, each.reason) for each in rows] == [("slack", "answered")]
    assert await subject.balanced()


Retrying = Callable[[Races, Any], Awaitable[object]]


async def by_the_api(subject: Races, step: Any) -> object:
    act = Counted(Act.of({}, "alert.retry", "alert", str(step.alert_id)))
    return await DlqRoutes(subject.engine, subject.intake, ())._retry_step(step, upkeep.RESET, act)


async def by_a_move(subject: Races, step: Any) -> object:
    worker = subject.worker(Silent())
    return await worker._retry_moved_back(AlertDead(alert_id=step.alert_id, target="slack"))


async def failed(subject: Races) -> tuple[UUID, Any]:
    case_id, step = await subject.asked()
    assert await subject.settle(await subject.claim(step), NEVER) == "failed"
    return case_id, await subject.own(step.alert_id)


@pytest.mark.parametrize("retry", [by_the_api, by_a_move])
async def test_an_answer_recalls_a_step_whose_retry_is_about_to_commit(
    subject: Races, monkeypatch: pytest.MonkeyPatch, retry: Retrying
) -> None:
    """Rule CREATE."""
    case_id, step = await failed(subject)
    async with held(monkeypatch, upkeep, "requeue", retry(subject, step)):
        taking = asyncio.create_task(subject.take(case_id))
        await ended_or_waiting(subject, taking)
    await taking
    row = await subject.own(step.alert_id)
    assert (row.state, row.generation) == ("discarded", 1)


@pytest.mark.parametrize("retry", [by_the_api, by_a_move])
async def test_no_retry_revives_a_step_of_a_chain_that_is_over(
    subject: Races, retry: Retrying
) -> None:
    """Rule CREATE."""
    case_id, step = await failed(subject)
    await subject.take(case_id)
    await retry(subject, step)
    assert (await subject.own(step.alert_id)).state == "failed"
    await subject.answer(case_id, answer(Verb.RELEASE))
    await retry(subject, step)
    assert (await subject.own(step.alert_id)).state == "failed"


async def test_the_fallback_of_an_alert_that_asks_is_told_too(subject: Races) -> None:
    """Rules CREATE and TOLD: a new place must not miss an answer that is about to commit."""
    case_id = await subject.accept(**CRITICAL)
    async with subject.engine.begin() as tx:
        await store.change(tx, await store.lock(tx, case_id), TAKEN_BY_ANNA)
        falling = asyncio.create_task(subject.fall_back())
        await eventually(lambda: waits_for_a_row(subject.engine))
    await falling
    places = await subject.places(case_id)
    assert {name: place.want for name, place in places.items()} == {"slack": 1, "email": 1}
    (row,) = await subject.rows(
        "SELECT * FROM delivery WHERE alert_id = :id AND target = 'email'", id=case_id
    )
    assert row.state == "pending"  # the alert is P1's: not recalled
    await subject.settle(await subject.claim(row), DELIVERED)
    (update,) = await subject.update()
    assert update.target == "email"
    job, _ = await case_messages.written(
        subject.engine, RULES, "email", await subject.claim(update)
    )
    assert "taken by Anna Nowak" in job.payload["text"]


async def test_when_the_chain_is_over_every_place_is_told(subject: Races) -> None:
    """Rule TOLD."""
    case_id = await subject.accept()
    await subject.run_out(case_id)
    assert {row.want for row in await subject.rows("SELECT want FROM case_place")} == {1}


async def test_a_step_claimed_after_the_chain_is_over_says_so(subject: Races) -> None:
    """Rule RENDER."""
    case_id = await subject.accept()
    await subject.run_out(case_id)
    job = await subject.claim((await subject.steps(case_id))[0])
    job, want = await case_messages.written(subject.engine, RULES, "slack", job)
    assert "no one has answered" in job.payload["text"]
    assert want == 1


async def test_what_changes_while_a_message_is_sent_is_told_afterwards(subject: Races) -> None:
    """Rule RENDER: a place shows what its message was written from."""
    case_id, step = await subject.asked()

    async def answered() -> None:
        await subject.take(case_id, "ewa")

    channel = Sending(answered)
    assert await handle(subject.worker(channel), step.alert_id) == Ack()
    assert "has waited" in channel.sent[0].payload["text"]
    place = (await subject.places(step.alert_id))["slack"]
    assert (place.want, place.shown) == (1, 0)
    assert step.alert_id in {UUID(row.payload["place"]) for row in await subject.update()}


@pytest.mark.promise("P1")
@pytest.mark.parametrize("ends", [False, True])
async def test_the_place_of_an_overtaken_worker_is_told_again(
    subject: Races, *, ends: bool
) -> None:
    """Rules LATE, TCAS and REARM: it does not say what its place shows, but that it is due."""
    case_id, step = await subject.asked()
    slow = Slow(subject.engine, ends=ends)
    worker = subject.worker(slow, timeout=0.005, margin=0.005)
    fenced = Ack() if ends else Retry("fenced")
    assert await handle(worker, step.alert_id) == fenced
    place = (await subject.places(step.alert_id))["slack"]
    assert (place.want, place.shown) == (1, None)
    await subject.take(case_id, "ewa")
    (update,) = [row for row in await subject.update() if row.payload["place"] == str(case_id)]
    assert await handle(worker, update.alert_id) == fenced
    place = (await subject.places(case_id))["slack"]
    assert (place.want, place.shown) == (2, None)


async def test_an_alert_that_is_retried_after_its_place_was_told_is_told_again(
    subject: Races,
) -> None:
    """Rule TOLD: below "taken by" it asks once more."""
    case_id = await subject.accept()
    await subject.settle(await subject.claim(await subject.own(case_id)), NEVER)
    await subject.take(case_id, "ewa")
    worker = subject.worker(Sending())
    (update,) = await subject.update()
    assert await handle(worker, update.alert_id) == Ack()
    assert len(await subject.update()) == 1
    await by_a_move(subject, await subject.own(case_id))
    assert await handle(worker, case_id, 1) == Ack()
    place = (await subject.places(case_id))["slack"]
    assert (place.want, place.shown) == (2, 1)
    assert len(await subject.update()) == 2


async def test_an_update_that_failed_is_not_retried_beside_the_next(subject: Races) -> None:
    case_id, _ = await subject.asked()
    await subject.take(case_id, "ewa")
    for update in await subject.update():
        await subject.settle(await subject.claim(update), NEVER)
        await by_a_move(subject, update)
        await by_the_api(subject, update)
        assert (await subject.own(update.alert_id)).state == "failed"


async def test_a_recalled_step_whose_attempts_are_used_up_is_discarded_unescalated(
    subject: Races,
) -> None:
    """Rule MARK: its worker died, and neither its message nor the reconciler lets it fail."""
    case_id, step = await subject.asked()
    await subject.claim(step, lease=0)
    await subject.execute(
        "UPDATE delivery SET attempt = 2, attempts = 2 WHERE alert_id = :id", id=step.alert_id
    )
    await subject.take(case_id, "ewa")
    assert await handle(subject.worker(Silent()), step.alert_id) == Retry("parked")
    reconciler = subject.reconciler()
    await reconciler.run()  # a worker may be waiting for the database: it gets a second run's time
    assert (await subject.own(step.alert_id)).state == "sending"
    await reconciler.run()
    row = await subject.own(step.alert_id)
    assert (row.state, row.reason) == ("discarded", "answered")
    assert await subject.rows("SELECT * FROM escalation") == []


class Silent:
    """A target that nothing is sent to."""

    async def send(self, _: Claimed) -> Outcome:
        raise AssertionError

    async def close(self) -> None:
        pass


class Sending(Silent):
    """A target that takes everything."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        self.sent: list[Claimed] = []
        self._meanwhile = meanwhile

    async def send(self, job: Claimed) -> Outcome:
        self.sent.append(job)
        if self._meanwhile is not None:
            await self._meanwhile()
        return TAKEN


def failing(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, *, times: int = 1000
) -> None:
    """Let this function of `case_messages` fail so often."""
    original, left = getattr(case_messages, name), [error] * times

    async def fails(*args: Any) -> Any:
        if left:
            raise left.pop()
        return await original(*args)

    monkeypatch.setattr(case_messages, name, fails)


async def test_a_step_that_cannot_be_written_fails_and_the_next_comes_at_once(
    subject: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id, step = await subject.asked()
    failing(monkeypatch, "written", KeyError("score"))
    worker = subject.worker(Silent())
    assert await handle(worker, step.alert_id) == Ack()
    row = await subject.own(step.alert_id)
    assert (row.state, row.reason, row.error) == ("failed", "bad_payload", "bad_payload KeyError")
    listed = await subject.rows("SELECT alert_id, target FROM escalation")
    assert listed == [(step.alert_id, "slack")]
    assert worker.breaker.failures == 0  # the target is not to blame
    await subject.timer.run()
    assert [each.number for each in await subject.steps(case_id)] == [0, 1]


async def test_a_message_waits_for_the_database_and_uses_one_attempt(
    subject: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, step = await subject.asked()
    monkeypatch.setattr("services.alerts.delivery.worker.RETRY_DATABASE_SECONDS", 0)
    gone = InterfaceError("SELECT 1", None, ConnectionError())
    failing(monkeypatch, "written", gone, times=3)
    channel = Sending()
    assert await handle(subject.worker(channel), step.alert_id) == Ack()
    row = await subject.own(step.alert_id)
    assert (row.state, row.attempts, len(channel.sent)) == ("delivered", 1, 1)


async def test_an_alert_whose_buttons_cannot_be_written_is_sent_without_them(
    subject: Races, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id = await subject.accept()
    failing(monkeypatch, "with_buttons", KeyError("score"))
    channel = Sending()
    assert await handle(subject.worker(channel), case_id) == Ack()
    assert (await subject.own(case_id)).state == "delivered"
    assert [job.buttons for job in channel.sent] == [()]
