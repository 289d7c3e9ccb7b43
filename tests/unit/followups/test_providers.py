"""What providers report of a mail, by examples as their pages have them."""

import json
from pathlib import Path
from typing import Any

import pytest

from libs.common.http.application import Problem, check_json
from services.followups.inbox import providers

EXAMPLES = json.loads((Path(__file__).parent / "providers.json").read_text("utf-8"))
POSTMARK, MAILGUN = EXAMPLES["postmark"], EXAMPLES["mailgun"]
BOUNCE, COMPLAINT = EXAMPLES["ses-bounce"], EXAMPLES["ses-complaint"]
REFUSED = {"delivery-status": {"code": 550, "enhanced-code": "5.7.1"}}
TRANSIENT = BOUNCE | {"bounce": BOUNCE["bounce"] | {"bounceType": "Transient"}}


def sns(said: dict[str, Any], kind: str = "Notification") -> dict[str, Any]:
    confirm = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f"
    return {
        "Type": kind,
        "MessageId": "22b80b92",
        "Message": json.dumps(said),
        "SubscribeURL": confirm,
    }


def mailgun(**changes: Any) -> Any:
    return MAILGUN | {"event-data": MAILGUN["event-data"] | changes}


@pytest.mark.parametrize(
    ("provider", "sent", "kind", "status"),
    [
        ("postmark", POSTMARK, "hard", "HardBounce"),
        ("postmark", POSTMARK | {"Type": "SoftBounce"}, "soft", "SoftBounce"),
        ("postmark", POSTMARK | {"Type": "SpamComplaint"}, "complaint", "SpamComplaint"),
        ("mailgun", MAILGUN, "hard", "5.1.1"),
        ("mailgun", mailgun(severity="temporary"), "soft", "5.1.1"),
        ("mailgun", mailgun(**REFUSED), "soft", "5.7.1"),
        ("mailgun", mailgun(event="complained"), "complaint", "5.1.1"),
        ("mailgun", mailgun(event="unsubscribed"), "unsubscribe", "5.1.1"),
        ("ses", sns(BOUNCE), "hard", "5.1.1"),
        ("ses", sns(TRANSIENT), "soft", "5.1.1"),
        ("ses", sns(COMPLAINT), "complaint", "complaint"),
    ],
)
def test_a_report_is_read(provider: Any, sent: Any, kind: str, status: str) -> None:
    (found,) = providers.reports(provider, sent)
    assert (found.kind, found.recipient, found.status) == (kind, "anna@example.org", status)
    (again,) = providers.reports(provider, sent)
    assert again.key == found.key


@pytest.mark.parametrize(
    ("provider", "sent"),
    [
        ("postmark", {"RecordType": "Delivery", "Recipient": "anna@example.org"}),
        ("mailgun", mailgun(event="opened")),
        ("ses", sns({"notificationType": "Delivery"})),
        ("ses", sns({}, "SubscriptionConfirmation")),
    ],
)
def test_what_arrived_or_was_opened_is_no_report(provider: Any, sent: Any) -> None:
    assert providers.reports(provider, sent) == []


@pytest.mark.parametrize("provider", ["postmark", "mailgun", "ses"])
@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 422), (b'"x"', 422), (b"{}", 422), (b'{"event-data": 1}', 422)],
)
def test_a_body_that_is_none_is_refused(provider: Any, body: bytes, status: int) -> None:
    with pytest.raises(Problem) as refused:
        providers.reports(provider, check_json(body))
    assert refused.value.status == status


@pytest.mark.parametrize(
    "changes", [{"Email": "no address"}, {"Email": 7}, {"ID": None, "Email": None}]
)
def test_a_report_without_an_address_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        providers.reports("postmark", POSTMARK | changes)


def test_sns_asks_once_for_a_person() -> None:
    asks = sns({}, "SubscriptionConfirmation")
    assert "ConfirmSubscription" in str(providers.confirmation("ses", asks))
    assert providers.confirmation("ses", sns(BOUNCE)) is None
    assert providers.confirmation("postmark", asks) is None
