"""`ostoja silence`: what is not sent for a time."""

from datetime import UTC, datetime, timedelta

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

SOON = (datetime.now(UTC) + timedelta(hours=3, minutes=1)).isoformat()
SILENCE = {
    "id": 7, "event_type": "pump.alarm", "severity": None, "source": None, "dedup_key": "pump 7",
    "begins": SOON, "ends": SOON, "by": "ola", "why": "a repair",
}  # fmt: skip


def test_it_lists_what_is_silenced_until_when_by_whom_and_why(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"items": [SILENCE]}), (200, {"items": []})]
    done = run("silence")
    assert gateway.asked[0][:2] == ("GET", "/api/silences")
    shown = " ".join(done.stdout.split())
    for said in ("pump.alarm", "pump 7", "in 3 h", "ola: a repair"):
        assert said in shown
    assert fits(done.stdout)
    assert run("silence").stdout == "none\n"


def test_a_silence_needs_an_end_and_a_reason(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"id": 7})]
    given = ("silence", "add", "pump.alarm", "--dedup-key", "pump 7")
    assert run(*given, "--until", "8h").exit_code == 2
    assert run(*given, "--why", "a repair").exit_code == 2
    done = run(*given, "--until", "8h", "--why", "a repair")
    method, path, body, _ = gateway.asked[0]
    assert (done.exit_code, method, path) == (0, "POST", "/api/silences")
    assert (body["event_type"], body["dedup_key"], body["why"]) == (
        "pump.alarm", "pump 7", "a repair",
    )  # fmt: skip
    assert "silence 7" in done.stdout


def test_a_silence_is_ended_by_its_number(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"ended": 7, "cases": 2})]
    done = run("silence", "end", "7")
    assert (done.exit_code, gateway.asked[0][:2]) == (0, ("DELETE", "/api/silences/7"))
    assert "2 cases" in done.stdout
