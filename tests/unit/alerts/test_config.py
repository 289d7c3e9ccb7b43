import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from services.alerts import config
from services.alerts.alert import Claimed
from services.alerts.config import Config

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "config/alerts.toml"
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


def test_the_shipped_file_has_the_targets_routes_and_times_that_are_promised() -> None:
    subject = shipped()
    assert subject.targets.keys() == {"slack", "monday", "email", "sms", "webhook"}
    for name, target in subject.targets.items():
        assert target.retry_delays == (300,) * 5, name
        assert (target.breaker.fail_max, target.breaker.reset_timeout) == (5, 60)
        assert target.max_age == 72 * 3600
    for event, target in (("slack_alert", "slack"), ("email", "email"), ("sms", "sms")):
        assert subject.route(event, None) == (target,)
    assert subject.route("webhook", None) == ("webhook",)
    assert subject.route("lead.qualified", None) == ("slack", "monday")
    assert subject.route("followup", None) == ("email",)


def test_an_explicit_target_must_be_a_configured_name() -> None:
    assert shipped().route("slack_alert", "webhook") == ("webhook",)
    assert shipped().route("slack_alert", "https://evil.example") == ()


def test_an_event_goes_to_each_target_once_however_many_patterns_match(tmp_path: Path) -> None:
    text = SLACK.replace("[routes]\n", '[routes]\n"*" = ["slack"]\n')
    subject, _ = config.load(written(tmp_path, text), ENV)
    assert subject.route("lead.qualified", None) == ("slack",)


def test_every_missing_variable_is_named_at_once_and_no_value_is_shown() -> None:
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
def test_what_is_no_url_stops_the_start_and_is_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        config.load(written(tmp_path, SLACK), {"SLACK_WEBHOOK_URL": url})
    assert "targets.slack" in str(stopped.value)
    assert "s3cret" not in str(stopped.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('{ env = "SLACK_WEBHOOK_URL" }', '"https://hooks.slack.example/x"'), "env"),
        (('channel = "slack"', 'channel = "slack"\ncolour = "red"'), "colour"),
        (('["slack"]', '["slak"]'), "slak"),
        (('"escalation" = ["slack"]\n', ""), "nobody would be told"),
        (('channel = "slack"', 'channel = "slack"\nretry_delays = [14]'), "lease"),
        (('channel = "slack"', 'channel = "slack"\nretry_delays = [300, 0.5]'), "whole seconds"),
        (('channel = "slack"', 'channel = "slack"\ntemplates = { "a" = "no.j2" }'), "no.j2"),
        (("[targets.slack]", "[targets.intake]"), "reserved"),
        (('channel = "slack"', 'channel = "slack"\nfallback = "nobody"'), "nobody"),
        (('channel = "slack"', 'channel = "slack"\nfallback = "slack"'), "a fallback itself"),
        (('channel = "slack"', 'channel = "slack"\nrate_per_minute = 0'), "rate_per_minute"),
    ],
)
def test_a_fault_in_the_file_stops_the_start_and_names_itself(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    text = SLACK.replace(*change)
    if "[targets.intake]" in text:
        text = text.replace('["slack"]', "[]")
    with pytest.raises(SystemExit, match=told):
        config.load(written(tmp_path, text), ENV)


def test_a_fallback_that_has_one_itself_stops_the_start(tmp_path: Path) -> None:
    one, other = (
        f'[targets.{name}]\nchannel = "slack"\nurl = {{ env = "SLACK_WEBHOOK_URL" }}\n{rest}\n'
        for name, rest in (("one", 'fallback = "other"'), ("other", 'fallback = "one"'))
    )
    with pytest.raises(SystemExit, match="other has a fallback itself"):
        config.load(written(tmp_path, f"[routes]\n{one}{other}"), ENV)


@pytest.mark.parametrize(("rate", "in_hand"), [(None, 16), (6000, 16), (12, 2), (1, 1)])
def test_no_more_is_in_hand_than_the_rate_lets_go_within_a_time_out(
    tmp_path: Path, rate: int | None, in_hand: int
) -> None:
    text = SLACK if rate is None else f"{SLACK}rate_per_minute = {rate}\n"
    subject, _ = config.load(written(tmp_path, text), ENV)
    assert subject.targets["slack"].in_hand == in_hand


@pytest.mark.parametrize(
    ("setting", "told"),
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
def test_a_mail_that_may_outlast_its_permit_or_its_lease_stops_the_start(
    tmp_path: Path, setting: str, told: str
) -> None:
    text = SHIPPED.read_text(encoding="utf-8").replace("timeout = 12\n", f"{setting}\n")
    (tmp_path / "templates").symlink_to(SHIPPED.parent / "templates")
    with pytest.raises(SystemExit, match=told):
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
        turn=0,
        attempt=1,
        spent=1,
        age=0,
        event_type="lead.qualified",
        severity="info",
        payload=known | payload,
        accepted_at=datetime.now(UTC),
        request_id=None,
    )


def test_the_slack_message_of_a_lead_carries_who_score_reasons_and_summary() -> None:
    _, templates = config.load(SHIPPED, ENV)
    text = templates.render("slack", lead())
    assert text is not None
    assert json.loads(text)["text"] == "New lead: ala@example.com, score 80"
    for part in ("ala@example.com", "80", "budget, area", "Kitchen, 80 m²"):
        assert part in text
    anonymous = templates.render("slack", lead(email=None))
    assert anonymous is not None
    assert json.loads(anonymous)["text"] == "New lead: session-1, score 80"


def test_what_a_visitor_wrote_cannot_break_the_json_nor_ping_a_channel() -> None:
    _, templates = config.load(SHIPPED, ENV)
    text = templates.render("slack", lead(name='"}] <!channel> \\', summary="<!here>\n{{ 7*7 }}"))
    assert text is not None
    json.loads(text)
    assert "<!" not in text
    assert "{{ 7*7 }}" in text
    item = templates.render("monday", lead(name='"quoted" \\'))
    assert item is not None
    assert json.loads(item)["item_name"] == '"quoted" \\'


def test_an_event_without_a_template_has_none() -> None:
    _, templates = config.load(SHIPPED, ENV)
    assert templates.render("email", lead()) is None
