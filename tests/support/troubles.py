"""What the runbooks are for: how each trouble comes about, on whichever system a checkout has."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.checkouts import Checkout, CommandError
from tests.support.eventually import eventually
from tests.support.forms import submit
from tests.support.runbooks import RUNBOOKS, Block, sections
from tests.support.stack import PATIENCE
from tests.support.system import LEAD, fresh_address

FIRST = sections(RUNBOOKS / "README.md")["First of all"]
PERMIT_SECONDS = float(PATIENCE["PERMIT_SECONDS"])

TRAIL = "consent.consent_audit_log"

Step = Callable[[Checkout], Awaitable[Any]]


async def nothing(_: Checkout) -> None:
    """Leave all to the page's own commands."""


@dataclass(frozen=True)
class Trouble:
    begins: Step
    goes_on: Step = nothing
    """What callers do amid it, again and again; a rule looks at that."""
    mends: Step = nothing
    """What no command of a page can do: Slack is back, somebody corrects a file."""


def stops(name: str) -> Step:
    return lambda checkout: checkout.stop(name)


def asks(statement: str) -> Step:
    return lambda checkout: checkout.ask(statement)


async def there(checkout: Checkout, what: str, seconds: float = 30) -> None:
    """Wait until this is in the database."""
    await eventually(lambda: checkout.ask(f"SELECT 1 FROM {what}"), seconds)


def edits(name: str, before: str, after: str) -> Step:
    """Return a step that replaces a text in a file of config/."""

    async def step(checkout: Checkout) -> None:
        path = checkout.config / name
        good = path.read_text(encoding="utf-8")
        assert before in good
        path.with_suffix(".good").write_text(good, encoding="utf-8")
        path.write_text(good.replace(before, after), encoding="utf-8")

    return step


def puts_back(name: str) -> Step:
    async def step(checkout: Checkout) -> None:
        path = checkout.config / name
        path.write_bytes(path.with_suffix(".good").read_bytes())

    return step


async def heal(checkout: Checkout) -> None:
    await checkout.sandbox.heal()


async def rabbitmq_stops(checkout: Checkout) -> None:
    """Leave a lead who is not told of yet."""
    await checkout.stop("rabbitmq")
    address = fresh_address()
    body = LEAD | {"session_id": address, "email": address}
    answer = await checkout.http("POST", "/api/chatbot/chat", body)
    assert answer.status == 200, answer


async def followups_hangs(checkout: Checkout) -> None:
    """Freeze it, and send a form."""
    await checkout.freeze("followups")
    answer = await submit(checkout, {"email": fresh_address()}, headers={"Origin": checkout.url})
    assert answer.status == 202, answer


async def alerts_is_misconfigured(checkout: Checkout) -> None:
    await edits("alerts.toml", '"channel" = "slack"', '"channel" = "slak"')(checkout)
    await checkout.restart("alerts")


async def slack_is_ill(checkout: Checkout) -> None:
    await checkout.sandbox.behave("slack", status=500)
    for number in range(6):
        await checkout.alert(f"while Slack is ill, {number}")


async def dead_letters_grow(checkout: Checkout) -> None:
    """Have Slack refuse what it gets, and somebody tell consent what it cannot read."""
    await checkout.publish("consent.commands", "grant.record", "what is this?")
    await checkout.sandbox.behave("slack", status=422)
    for number in range(3):
        await checkout.alert(f"while Slack refuses, {number}")


async def slack_is_flooded(checkout: Checkout) -> None:
    await checkout.sandbox.behave("slack", status=429, retry_after=5)
    await asyncio.gather(*(checkout.alert(f"in a loop, {number}") for number in range(110)))


def limited(**limits: str) -> Step:
    """Return a step that sets limits, and waits until a chat is refused."""

    async def step(checkout: Checkout) -> None:
        answer = await checkout.http("PUT", "/api/ratelimits", limits, key="admin")
        assert answer.status == 200, answer
        await eventually(lambda: somebody_chats(checkout), so=lambda status: status == 429)

    return step


async def somebody_chats(checkout: Checkout) -> int:
    body = {"message": "Dzień dobry", "session_id": fresh_address()}
    return (await checkout.http("POST", "/api/chatbot/chat", body)).status


async def somebody_unsubscribes(checkout: Checkout) -> int:
    return (await checkout.http("POST", "/api/unsubscribe", {"email": fresh_address()})).status


async def the_mail_server_does_not_answer(checkout: Checkout) -> None:
    """Take a follow-up's mail, and end the connection without a word."""
    await checkout.sandbox.behave("email", close=True, accepted=True)
    await a_follow_up_is_due(checkout)


async def alerts_stands_still(checkout: Checkout) -> None:
    """Freeze it between a mail's last byte and the answer, until its permit is over."""
    await checkout.sandbox.behave("email", delay_seconds=4)
    await a_follow_up_is_due(checkout)
    await there(checkout, "alerts.delivery WHERE state = 'sending' AND once_address IS NOT NULL")
    await asyncio.sleep(0.4)  # by then the whole mail is there, and its answer is not
    await checkout.freeze("alerts")
    await asyncio.sleep(PERMIT_SECONDS + 1)
    await checkout.thaw("alerts")


async def a_follow_up_is_due(checkout: Checkout) -> None:
    address = fresh_address()
    await checkout.opt_in(address)
    await checkout.follow_up(address)


async def a_message_cannot_be_read(checkout: Checkout) -> None:
    await checkout.publish("alerts", "alerts.intake", "what is this?")


async def the_trail_is_cut(checkout: Checkout) -> None:
    """Delete, with the superuser's rights, what the newest checkpoint has signed last."""
    await checkout.opt_in(fresh_address())

    async def signed() -> int:
        answer = await checkout.http("GET", "/api/consent/audit/checkpoints", key="admin")
        return max((one["rows"] for one in answer.body["checkpoints"]), default=0)

    rows = await eventually(signed, 30)
    kept = f"CREATE TABLE public.backup AS SELECT * FROM {TRAIL}"
    await checkout.ask(f"{kept}; {_past_the_triggers(f'DELETE FROM {TRAIL} WHERE id >= {rows}')}")


def _past_the_triggers(change: str) -> str:
    """As only the table's owner and the superuser can."""
    triggers = ("trail_link", "trail_refuse")
    back = "; ".join(f"ALTER TABLE {TRAIL} ENABLE ALWAYS TRIGGER {name}" for name in triggers)
    return f"ALTER TABLE {TRAIL} DISABLE TRIGGER USER; {change}; {back}"


RESTORED = f"INSERT INTO {TRAIL} SELECT * FROM public.backup ON CONFLICT DO NOTHING"
THE_TRAIL_IS_RESTORED = f"{_past_the_triggers(RESTORED)}; DROP TABLE public.backup"


async def an_erasure_hangs(checkout: Checkout) -> None:
    """Have alerts hang, and let it be 27 days since somebody asked."""
    address = fresh_address()
    await checkout.opt_in(address)
    await checkout.freeze("alerts")
    answer = await checkout.http("POST", "/api/consent/erase", {"email": address}, key="admin")
    assert answer.status == 200, answer
    await checkout.ask(
        "UPDATE consent.erasure SET requested_at = requested_at - interval '27 days' "
        "WHERE status = 'in_progress'"
    )


async def nobody_is_told(checkout: Checkout) -> None:
    """Have an alert fail while mail is refused, and let that be an hour ago."""
    await checkout.sandbox.behave("email", status=550)
    await checkout.sandbox.behave("slack", status=422)
    await checkout.alert("of which nobody is told")
    await there(checkout, "alerts.escalation WHERE digest IS NULL")
    await checkout.restart("alerts")  # or its first mail would leave within five minutes
    await there(checkout, "alerts.escalation WHERE digest IS NULL AND send_failures > 0", 60)
    await checkout.ask(
        "UPDATE alerts.escalation SET created_at = created_at - interval '1 hour', "
        "send_failed_at = send_failed_at - interval '1 hour' WHERE digest IS NULL"
    )


async def nobody_answers(checkout: Checkout) -> None:
    """Ask for an answer, and let each wait be over at once."""
    case_id = await checkout.alert("that nobody takes", event_type="lead.test")

    async def over() -> list[Any]:
        await checkout.ask(_at_once(case_id))
        return await checkout.ask(f"SELECT 1 FROM {_case(case_id, 'unanswered')}")

    await eventually(over, 60, every=0.5)


def _at_once(case_id: str) -> str:
    due = "SET next_at = now() - interval '2 minutes'"
    return f"UPDATE {_case(case_id, 'open').replace(' WHERE', f' {due} WHERE')}"


def _case(case_id: str, state: str) -> str:
    return f"alerts.alert_case WHERE alert_id = '{case_id}' AND state = '{state}'"


async def the_timer_lacks_a_right(checkout: Checkout) -> None:
    """Let a case be due for two minutes, and no timer be able to move it."""
    await checkout.ask("REVOKE INSERT ON alerts.case_step FROM alerts")
    case_id = await checkout.alert("whose timer stands still", event_type="lead.test")
    await there(checkout, _case(case_id, "open"))
    await checkout.ask(_at_once(case_id))


def cases_are_counted(difference: int) -> Step:
    """Return a step that counts so many opened cases more than there are."""
    return asks(
        f"INSERT INTO alerts.case_total AS total (term, count) VALUES ('opened', {difference}) "
        f"ON CONFLICT (term) DO UPDATE SET count = total.count + {difference}"
    )


async def a_certificate_ends_in_ten_days(checkout: Checkout) -> None:
    """Use TLS between the gateway and the services, with certificates made for ten days."""
    status, output, complaints = await checkout.shell(
        "make certs DAYS=10\n"
        "sed -i 's|^CERTS_DIR=.*|CERTS_DIR=certs/localhost|' .env\n"
        "make down\nmake up"
    )
    assert status == 0, output + complaints


TROUBLES: dict[str, Trouble] = {
    "redis-unavailable": Trouble(stops("redis")),
    "rate-limit-hit": Trouble(limited(chat="1 per minute"), somebody_chats),
    "budget-exhausted": Trouble(
        # One network uses up its part of the chats', and all of the one that refuses nobody.
        limited(chat_budget="1 per hour", withdrawal_budget="1 per hour"),
        somebody_unsubscribes,
    ),
    "breaker-open": Trouble(slack_is_ill, mends=heal),
    "dead-letters": Trouble(dead_letters_grow, mends=heal),
    "alerts-pending": Trouble(slack_is_flooded, mends=heal),
    "escalation-unsent": Trouble(nobody_is_told, mends=heal),
    "ledger-check-failing": Trouble(a_message_cannot_be_read),
    "delivery-in-doubt": Trouble(the_mail_server_does_not_answer, mends=heal),
    "permit-overrun": Trouble(alerts_stands_still, mends=heal),
    "trail-mismatch": Trouble(the_trail_is_cut, mends=asks(THE_TRAIL_IS_RESTORED)),
    "erasure-due-soon": Trouble(an_erasure_hangs),
    "service-down": Trouble(alerts_is_misconfigured, mends=puts_back("alerts.toml")),
    "database-unavailable": Trouble(stops("postgres")),
    "unsubscribe-failing": Trouble(stops("postgres"), somebody_unsubscribes),
    "outbox-lag": Trouble(rabbitmq_stops),
    "leads-waiting": Trouble(followups_hangs),
    "cases-unanswered": Trouble(nobody_answers),
    "case-stranded": Trouble(
        the_timer_lacks_a_right, mends=asks("GRANT INSERT ON alerts.case_step TO alerts")
    ),
    "case-check-failing": Trouble(cases_are_counted(1), mends=cases_are_counted(-1)),
    "oncall-gap": Trouble(
        edits("rota-sales.ics", "INTERVAL=2", "INTERVAL=2;COUNT=1"),
        mends=puts_back("rota-sales.ics"),
    ),
}
"""By page."""
OF_MAKE_UP = {"certificate-due": Trouble(a_certificate_ends_in_ten_days)}
"""Those that are not made in containers; what comes after them uses TLS."""
OF_THREE_HOSTS = ("node-lost", "quorum-critical", "no-standby", "replica-lag")
"""Those of several hosts, which tests/cluster/test_drill.py makes."""


def steps(page: str) -> tuple[list[Block], list[Block], list[Block]]:
    """Return what a page says to look at, to do, and to verify by; each for a shell of its own."""
    found = sections(RUNBOOKS / f"{page}.md")
    look, act, verify = (found[name] for name in ("Look", "Act", "Verify"))
    assert look
    assert verify
    return (
        [*FIRST, *found[""], *look],
        [*FIRST, *found[""], *act],
        [*FIRST, *found[""], *verify],
    )


async def passes(checkout: Checkout, blocks: Sequence[Block]) -> bool:
    try:
        await checkout.run(blocks)
    except CommandError:
        return False
    return True


async def patiently(checkout: Checkout, blocks: Sequence[Block], seconds: float = 60) -> None:
    """Repeat what changes nothing until it says what the page says, as a person would.

    :raises CommandError: it still does not
    """
    try:
        await eventually(lambda: passes(checkout, blocks), seconds, every=0.5)
    except TimeoutError:
        await checkout.run(blocks)
