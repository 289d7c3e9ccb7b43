"""Withdrawal and erasure, raced by forms that are still on their way (P4, Art. 17)."""

import pytest

from tests.integration.system.test_person import done, erase, export, places
from tests.support.eventually import eventually
from tests.support.forms import agreed, alerts, arrived, quiet, stored, submit
from tests.support.stack import Stack
from tests.support.system import fresh_address

pytestmark = pytest.mark.promise("P4", "P11")

PHONE = "+48601234999"


@pytest.fixture(autouse=True)
async def healed(stack: Stack) -> None:
    await stack.sandbox.reset()


async def test_forms_are_exported_and_erased_also_what_was_kept_apart(stack: Stack) -> None:
    email = fresh_address()
    await submit(stack, {"email": email, "phone": PHONE, "message": "Remont"})
    await submit(stack, {"email": email, "message": "Buy"}, trap="x")
    await arrived(stack, email)
    held = (await export(stack, email))["services"]["followups"]
    assert {row["state"] for row in held["submissions"]} == {"accepted", "suspected"}
    assert held["dead_letters"] == []
    await erase(stack, email=email)
    await done(stack, email)
    assert stored(stack, email) == []
    assert places(stack, email, PHONE) <= {"alerts.escalation"}


async def test_an_erasure_waits_for_a_form_in_the_queue_and_leaves_none_of_it(stack: Stack) -> None:
    email, consents = fresh_address(), await agreed(stack)
    await stack.opt_in(email)
    await stack.stop("followups")
    accepted = await submit(stack, {"email": email}, consents=consents)
    assert accepted.status == 202
    await erase(stack, email=email)
    await stack.start("followups")
    await done(stack, email)
    await eventually(lambda: quiet(stack), 60)
    assert stored(stack, email) == []
    assert {row.state for row in alerts(stack, accepted.body["id"])} <= {"delivered", "discarded"}
    assert places(stack, email) <= {"alerts.escalation"}
    assert not any(((await stack.consents(email))["consents"] or {}).values())


async def test_a_withdrawal_is_not_undone_by_an_agreement_that_was_on_its_way(stack: Stack) -> None:
    email, consents = fresh_address(), await agreed(stack)
    await stack.opt_in(email)
    await stack.stop("followups")
    await submit(stack, {"email": email}, consents=consents)
    withdrawn = await stack.http("POST", "/api/unsubscribe", {"email": email})
    assert withdrawn.status == 200
    await stack.start("followups")
    await arrived(stack, email)

    audit = await eventually(
        lambda: stack.audit(email), so=lambda found: "submission" in str(found["entries"])
    )
    (entry,) = [each for each in audit["entries"] if "submission" in each["evidence"]]
    assert entry["evidence"]["counts"] is False
    assert (await stack.consents(email))["unsubscribed"] is True
    follow_up = await stack.follow_up(email)
    assert follow_up is not None
    mails = await stack.sandbox.mails(email)
    assert [mail for mail in mails if "/opt-in/confirm" not in mail["Text"]] == []
