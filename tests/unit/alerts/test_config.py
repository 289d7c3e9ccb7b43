from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.common import beside
from services.alerts.config import rota
from services.alerts.config import targets as config
from services.alerts.config.targets import Config
from services.alerts.rules.shifts import Rule

TABLE = beside.toml(__file__)
ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "config.example/alerts.toml"
ENV: dict[str, str] = TABLE["env"]
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


@pytest.mark.parametrize("url", TABLE["urls"])
def test_an_invalid_url_stops_the_start_and_is_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        config.load(written(tmp_path, SLACK), {"SLACK_WEBHOOK_URL": url})
    assert "targets.slack" in str(stopped.value)
    assert "s3cret" not in str(stopped.value)


@pytest.mark.parametrize("fault", TABLE["fault"], ids=lambda fault: fault["told"])
def test_a_fault_in_the_file_stops_the_start_and_is_named(
    tmp_path: Path, fault: dict[str, str]
) -> None:
    text = SHIPPED.read_text(encoding="utf-8") if fault["of"] == "shipped" else SLACK
    text = text.replace(fault["old"], fault["new"]) if "old" in fault else text + fault["new"]
    with pytest.raises(SystemExit, match=fault["told"]):
        config.load(written(tmp_path, text), ENV)


@pytest.mark.parametrize(("rate", "prefetch"), [(None, 16), (6000, 16), (12, 2), (1, 1)])
def test_the_prefetch_is_bounded_by_the_rate_within_a_time_out(
    tmp_path: Path, rate: int | None, prefetch: int
) -> None:
    text = SLACK if rate is None else f"{SLACK}rate_per_minute = {rate}\n"
    subject, _ = config.load(written(tmp_path, text), ENV)
    assert subject.targets["slack"].prefetch == prefetch
