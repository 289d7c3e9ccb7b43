import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.alerts.config import rota
from services.alerts.config import targets as config
from services.alerts.config.targets import Config
from services.alerts.rules.delivery import Claimed
from services.alerts.rules.shifts import Rule

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "config.example/alerts.toml"
ENV = {
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/T/B/secret-path",
    "MONDAY_API_URL": "https://api.monday.example/v2",
    "MONDAY_API_TOKEN": "monday-token",
    "MONDAY_BOARD_ID": "123456",
    "SMTP_HOST": "mail.example",
    "SMTP_PORT": "587",
    "MAIL_FROM": "ostoja@example.com",
    "STAFF_EMAIL": "staff@example.com",
    "SMS_API_URL": "https://sms.example",
    "SMS_API_TOKEN": "sms-token",
    "SMS_TO": "+48600700800",
    "WEBHOOK_URL": "https://hooks.example",
    "WEBHOOK_SECRET": "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
}
SLACK = """
[routes]
"lead.*" = ["slack"]
"escalation" = ["slack"]
[targets.slack]
channel = "slack"
url = { env = "SLACK_WEBHOOK_URL" }
"""


def shipped() -> Config:
    return config.load(SHIPPED, ENV)[0]


def written(folder: Path, text: str) -> Path:
    path = folder / "alerts.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_target_names_the_settings_that_it_may_object_to(tmp_path: Path) -> None:
    settings = shipped().settings
    assert settings["slack"] == ("SLACK_WEBHOOK_URL",)
    assert settings["monday"] == ("MONDAY_API_URL", "MONDAY_API_TOKEN", "MONDAY_BOARD_ID")
    assert settings["email"] == ("SMTP_USERNAME", "SMTP_PASSWORD", "MAIL_FROM")
    text = f"""{SLACK}
[targets.items]
channel = "monday"
url = "https://api.example/v2"
token = {{ env = "MONDAY_API_TOKEN" }}
board = "12"
"""
    own, _ = config.load(written(tmp_path, text), ENV)
    names = ("targets.items.url", "MONDAY_API_TOKEN", "targets.items.board")
    assert own.settings["items"] == names


@pytest.mark.parametrize("year", [2026, 2027, 2033, 2050])
def test_the_shifts_of_the_example_have_no_gap_and_no_end(year: int) -> None:
    begin = datetime(year, 12, 20, tzinfo=UTC)
    schedule = rota.load(shipped(), SHIPPED.parent)["sales"]
    schedule.refresh(begin)
    assert schedule.fault is None
    found = [schedule.who((), begin + timedelta(hours=hour)) for hour in range(13 * 24)]
    assert {each.rule for each in found} == {Rule.SHIFT}
    assert {each.person for each in found} == {"jan", "maria"}


def test_the_example_file_has_the_documented_targets_and_routes() -> None:
    subject = shipped()
    assert subject.targets.keys() == {"slack", "monday", "email", "sms", "webhook"}
    for name, target in subject.targets.items():
        assert target.retry_delays == (300,) * 5, name
        assert (target.breaker.fail_max, target.breaker.reset_timeout) == (5, 60)
        assert target.max_age == 72 * 3600
    for event, name in (("slack_alert", "slack"), ("email", "email"), ("sms", "sms")):
        assert subject.route(event, None) == (name,)
    assert subject.route("webhook", None) == ("webhook",)
    assert subject.route("lead.qualified", None) == ("slack", "monday")
    assert subject.route("followup", None) == ("email",)


def test_a_mail_to_staff_goes_to_a_mailbox_whatever_the_routes_say() -> None:
    everything = shipped().model_copy(update={"routes": {"*": ("slack", "webhook")}})
    assert everything.route("staff.mail", None) == ("email",)


def test_an_explicit_target_must_be_a_configured_name() -> None:
    assert shipped().route("slack_alert", "webhook") == ("webhook",)
    assert shipped().route("slack_alert", "https://evil.example") == ()


def test_an_event_goes_to_each_target_once_however_many_patterns_match(tmp_path: Path) -> None:
    text = SLACK.replace("[routes]\n", '[routes]\n"*" = ["slack"]\n')
    subject, _ = config.load(written(tmp_path, text), ENV)
    assert subject.route("lead.qualified", None) == ("slack",)


def test_every_missing_variable_is_named_and_no_value_shown() -> None:
    with pytest.raises(SystemExit) as stopped:
        config.load(SHIPPED, {"SLACK_WEBHOOK_URL": ENV["SLACK_WEBHOOK_URL"]})
    text = str(stopped.value)
    assert "MONDAY_API_TOKEN" in text
    assert "SMTP_HOST" in text
    assert "secret-path" not in text


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("https://hooks.slack.example/from-file\n", encoding="utf-8")
    env = {"SLACK_WEBHOOK_URL_FILE": str(tmp_path / "url")}
    subject, _ = config.load(written(tmp_path, SLACK), env)
    assert subject.targets["slack"].secrets() == ("https://hooks.slack.example/from-file",)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.slack.example/s3cret",
        "ftp://a.example/s3cret",
        "https:///s3cret",
        "https://user:s3cret@a.example:x/",
        "https://[s3cret]/",
        "https://a.example:70000/s3cret",
    ],
)
def test_an_invalid_url_stops_the_start_and_is_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        config.load(written(tmp_path, SLACK), {"SLACK_WEBHOOK_URL": url})
    assert "targets.slack" in str(stopped.value)
    assert "s3cret" not in str(stopped.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('{ env = "SLACK_WEBHOOK_URL" }', '"https://hooks.slack.example/x"'), "env"),
        (('channel = "slack"', 'channel = "slack"\ncolour = "red"'), "colour"),
        (('["slack"]', '["slak"]'), "slak"),
        (('"escalation" = ["slack"]\n', ""), "no one would be notified"),
        (('channel = "slack"', 'channel = "slack"\nretry_delays = [14]'), "lease"),
        (('channel = "slack"', 'channel = "slack"\nretry_delays = [300, 0.5]'), "whole seconds"),
        (('channel = "slack"', 'channel = "slack"\ntemplates = { "a" = "no.j2" }'), "no.j2"),
        (("[targets.slack]", "[targets.intake]"), "reserved"),
        (('channel = "slack"', 'channel = "slack"\nfallback = "unknown"'), "unknown"),
        (('channel = "slack"', 'channel = "slack"\nfallback = "slack"'), "a fallback itself"),
        (('channel = "slack"', 'channel = "slack"\nrate_per_minute = 0'), "rate_per_minute"),
    ],
)
def test_a_fault_in_the_file_stops_the_start_and_is_named(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = SLACK.replace(*change)
    if "[targets.intake]" in text:
        text = text.replace('["slack"]', "[]")
    with pytest.raises(SystemExit, match=message):
        config.load(written(tmp_path, text), ENV)


def test_a_fallback_with_a_fallback_stops_the_start(tmp_path: Path) -> None:
    one, other = (
        f'[targets.{name}]\nchannel = "slack"\nurl = {{ env = "SLACK_WEBHOOK_URL" }}\n{rest}\n'
        for name, rest in (("one", 'fallback = "other"'), ("other", 'fallback = "one"'))
    )
    with pytest.raises(SystemExit, match="other has a fallback itself"):
        config.load(written(tmp_path, f"[routes]\n{one}{other}"), ENV)


@pytest.mark.parametrize(("rate", "prefetch"), [(None, 16), (6000, 16), (12, 2), (1, 1)])
def test_the_prefetch_is_bounded_by_the_rate_within_a_time_out(
    tmp_path: Path, rate: int | None, prefetch: int
) -> None:
    text = SLACK if rate is None else f"{SLACK}rate_per_minute = {rate}\n"
    subject, _ = config.load(written(tmp_path, text), ENV)
    assert subject.targets["slack"].prefetch == prefetch


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "timeout = 15",
            r"email: .*timeout \+ margin \(20 s\) must be below permit",
        ),
        ("dot_deadline = 20", r"email: .*dot_deadline must be below permit"),
        (
            "ask_timeout = 300",
            r"email: .*retry_delays\[0\] \(300 s\) must be at least the lease",
        ),
    ],
)
def test_a_time_out_longer_than_permit_or_lease_stops_the_start(
    tmp_path: Path, setting: str, message: str
) -> None:
    text = f"{SHIPPED.read_text(encoding='utf-8')}\n[targets.email]\n{setting}\n"
    with pytest.raises(SystemExit, match=message):
        config.load(written(tmp_path, text), ENV)


def lead(**payload: object) -> Claimed:
    known = {
        "session_id": "session-1",
        "email": "ala@example.com",
        "score": 80,
        "reasons": ["budget", "area"],
        "summary": "Kitchen, 80 m²",
    }
    return Claimed(
        alert_id=uuid4(),
        target="slack",
        generation=0,
        attempt=1,
        attempts=1,
        age=0,
        event_type="lead.qualified",
        severity="info",
        payload=known | payload,
        accepted_at=datetime.now(UTC),
        request_id=None,
        due_at=datetime.now(UTC),
    )


def slack_message(**payload: Any) -> tuple[str, str]:
    """Return the whole text that a notification shows."""
    _, templates = config.load(SHIPPED, ENV)
    text = templates.render("slack", lead(**payload))
    assert text is not None
    return json.loads(text)["text"], json.dumps(json.loads(text), ensure_ascii=False)


def test_the_slack_message_of_a_lead_has_contact_wish_and_next_step() -> None:
    title, message = slack_message(
        name="Ala Nowak", work="remont kuchni", city="Kraków", phone="+48600700800",
        staff_language="pl", hot=True, said=["Kiedy możecie zacząć?"], may_mail="given",
        transcript_url="https://ostoja.example.com/console/leads/1",
    )  # fmt: skip
    assert title == "Gorący lead: Ala Nowak, remont kuchni, Kraków · ala@example.com"
    for part in (
        "Zadzwoń: <tel:+48600700800|+48600700800>", "można wysyłać maile", "Kiedy możecie zacząć?",
        "80 pkt: budget, area", "Kitchen, 80 m²",
        "<https://ostoja.example.com/console/leads/1|Cała rozmowa>",
    ):  # fmt: skip
        assert part in message


@pytest.mark.parametrize(
    ("may_mail", "says"),
    [("given", "można wysyłać maile"), ("waiting", "czeka na potwierdzenie"), (None, "bez zgody")],
)
def test_the_slack_message_says_how_consent_stands(may_mail: str | None, says: str) -> None:
    _, message = slack_message(name="Ala", staff_language="pl", may_mail=may_mail)
    assert says in message
    assert ("można wysyłać maile" in message) == (may_mail == "given")


def test_staff_are_not_asked_to_call_a_lead_who_wants_no_calls() -> None:
    _, message = slack_message(phone="+48600700800", no_calls=True, staff_language="pl")
    assert "tel:" not in message
    assert "NIE DZWONIĆ" in message
    assert "Odpisz: ala@example.com" in message


def visitor(target: str, event: str, **payload: Any) -> str:
    _, templates = config.load(SHIPPED, ENV)
    known = {"topic": "PILNE: awaria", "said": ["Czuć gaz!"], "staff_language": "pl"}
    known |= {"transcript_url": "https://ostoja.example.com/console/leads/1"}
    job = replace(lead(email=None, **known | payload), event_type=event)
    return templates.render(target, job) or ""


def test_an_emergency_in_slack_says_so_and_what_was_written() -> None:
    message = json.loads(visitor("slack", "visitor.emergency"))
    assert message["text"] == "PILNE: awaria: session-1"
    assert "Czuć gaz!" in json.dumps(message, ensure_ascii=False)
    assert "Bez numeru i adresu" in json.dumps(message, ensure_ascii=False)


def test_an_sms_has_neither_name_nor_phone() -> None:
    text = visitor("sms", "visitor.emergency", name="Ala Nowak", phone="+48600700800")
    assert "jest numer telefonu" in text
    assert "600700800" not in text
    assert "Ala" not in text


def test_a_mail_to_staff_has_the_topic_as_subject() -> None:
    subject, _, text = visitor(
        "email", "visitor.complaint", topic="Reklamacja / serwis", phone="+48600700800"
    ).partition("\n")
    assert subject == "Reklamacja / serwis: +48600700800"
    assert "> Czuć gaz!" in text
    assert "https://ostoja.example.com/console/leads/1" in text


def test_monday_gets_a_phone_in_its_documented_form_and_no_empty_columns() -> None:
    _, templates = config.load(SHIPPED, ENV)
    item = json.loads(
        templates.render("monday", lead(phone="+48600700800", phone_country="PL", email=None)) or ""
    )
    assert item["item_name"] == "+48600700800"
    assert item["column_values"]["phone"] == {"phone": "+48600700800", "countryShortName": "PL"}
    assert "email" not in item["column_values"]


def test_a_visitors_text_cannot_break_json_or_notify_a_channel() -> None:
    _, templates = config.load(SHIPPED, ENV)
    text = templates.render("slack", lead(name='"}] <!channel> \\', summary="<!here>\n{{ 7*7 }}"))
    assert text is not None
    json.loads(text)
    assert "<!" not in text
    assert "{{ 7*7 }}" in text
    item = templates.render("monday", lead(name='"quoted" \\'))
    assert item is not None
    assert json.loads(item)["item_name"] == '"quoted" \\'
