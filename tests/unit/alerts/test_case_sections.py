"""[answers], [hours], [schedules] and [people]: what they say, and each fault with its place."""

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from libs.common import beside
from services.alerts.config import targets as config
from services.alerts.config.targets import Config
from services.alerts.rules.heartbeats import Schedule
from services.gateway.targets import Targets

ENV = {
    "SLACK_TOKEN": "xoxb-1-secret",
    "SMS_TOKEN": "sms-token",
    "PHONE_ANNA": "600 700 800",
    "PUSH_URL": "json://127.0.0.1",
}
FILE = beside.text(__file__, "case_sections.toml")
FAULTS = beside.toml(__file__)
CHAIN = FILE[FILE.index("chain = [") : FILE.index("repeat = 1")]


def load(folder: Path, text: str) -> Config:
    path = folder / "alerts.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, ENV)[0]


def faults(folder: Path, *changes: tuple[str, str]) -> list[str]:
    text = FILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(SystemExit) as stopped:
        load(folder, text)
    return str(stopped.value).replace(f"{folder}/", "").splitlines()


def test_the_sections_are_read(tmp_path: Path) -> None:
    subject = load(tmp_path, FILE)
    answers = subject.answers["lead.qualified"]
    assert answers.within == timedelta(minutes=15)
    assert [step.to for step in answers.policy.steps] == ["slack", "sms", "push", "email"] * 2
    assert [step.schedule for step in answers.chain] == ["sales", "sales", None, None]
    assert (answers.later.most, answers.later.times) == (timedelta(hours=8), 3)
    assert subject.people["anna"].phone == "+48600700800"
    assert subject.people["ewa"].email == "ewa@example.com"
    assert subject.hours_of("office").zone == ZoneInfo("Europe/Warsaw")
    assert subject.hours_of("always").opens is None
    assert subject.hours_of("always").zone == ZoneInfo("Europe/Warsaw")  # by which times are shown
    assert subject.hours_for("sales").zone == ZoneInfo("Europe/Warsaw")
    assert subject.needs_of("sales", subject.targets) == {"slack", "phone"}


def test_the_gateway_reads_the_same_routes_with_and_without_them(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text(FILE, encoding="utf-8")
    known = Targets.read(path)
    path.write_text(FILE[: FILE.index("[answers")], encoding="utf-8")
    assert Targets.read(path) == known


@pytest.mark.parametrize("fault", FAULTS["fault"], ids=lambda row: row["told"])
def test_each_fault_is_named_with_its_line_and_what_was_meant(
    tmp_path: Path, fault: dict[str, str]
) -> None:
    found = faults(tmp_path, (fault["old"].replace("CHAIN", CHAIN), fault["new"]))
    assert any(fault["told"] in each for each in found), found


def test_a_chain_of_messages_that_no_one_can_answer_is_refused(tmp_path: Path) -> None:
    webhook = (
        'token = { env = "SLACK_TOKEN" }\npost_to = "C0123"\nteam = "T0123"',
        'url = { env = "PUSH_URL" }',
    )
    chain = 'chain = [{ to = "slack", mention = "sales", wait = "10m" }]\n'
    env_url = ENV | {"PUSH_URL": "https://hooks.slack.example/T/B/s"}
    text = FILE.replace(*webhook).replace(CHAIN, chain)
    path = tmp_path / "alerts.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match="no message of it can be answered"):
        config.load(path, env_url)


def test_a_heartbeat_says_how_often_an_event_comes_at_least(tmp_path: Path) -> None:
    given = load(tmp_path, FILE)
    schedule = Schedule(16 * 3600.0, hours=given.hours_of("office"))
    assert given.rules.heartbeats == {"lead.qualified": schedule}


def test_an_owner_is_given_at_most_14_days(tmp_path: Path) -> None:
    given = load(tmp_path, FILE.replace("repeat = 1", 'repeat = 1\ndone_within = "8h"'))
    assert given.answers["lead.qualified"].done_within == timedelta(hours=8)
    with pytest.raises(SystemExit, match="done_within"):
        load(tmp_path, FILE.replace("repeat = 1", 'repeat = 1\ndone_within = "15d"'))


def test_all_faults_are_told_at_once_and_no_secret(tmp_path: Path) -> None:
    found = faults(
        tmp_path, ('to = "push"', 'to = "pusch"'), ('hours = "office"', 'hours = "offices"')
    )
    assert len(found) == 3  # the hours are named twice
    assert "secret" not in "".join(found)
