"""`ostoja oncall`: who is on call, and overrides."""

from datetime import UTC, datetime, timedelta

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

SOON = (datetime.now(UTC) + timedelta(hours=3, minutes=1)).isoformat()
FOUND = {
    "schedules": {
        "sales": {
            "person": "ewa", "name": "Ewa Lis", "rule": "override", "until": SOON,
            "fault": "rota-sales.ics: bob is not in [people]",
        },
        "ops": {
            "person": "anna", "name": "Anna Nowak", "rule": "otherwise", "until": None,
            "fault": None,
        },
    },
    "overrides": [{
        "id": 7, "schedule": "sales", "person": "ewa", "begins": SOON, "ends": SOON, "by": "ola",
        "why": "ill",
    }],
}  # fmt: skip


def test_it_shows_who_is_on_call_until_when_and_by_which_rule(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, FOUND)]

    done = run("oncall")

    assert done.exit_code == 0
    assert gateway.asked[0][:2] == ("GET", "/api/oncall")
    shown = " ".join(done.stdout.split())
    for said in ("Ewa Lis", "override", "in 3 h", "Anna Nowak", "otherwise", "bob is", "ola: ill"):
        assert said in shown
    assert fits(done.stdout)


def test_an_override_ends_so_long_from_now(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"id": 7})]

    done = run("oncall", "override", "sales", "ewa", "--until", "8h", "--why", "Anna is ill")

    method, path, body, _ = gateway.asked[0]
    assert (done.exit_code, method, path) == (0, "POST", "/api/oncall/overrides")
    assert (body["schedule"], body["person"], body.get("begins")) == ("sales", "ewa", None)
    left = datetime.fromisoformat(body["ends"]) - datetime.now(UTC)
    assert timedelta(hours=7, minutes=50) < left <= timedelta(hours=8)
    assert "override 7" in done.stdout


def test_one_that_overlaps_ends_with_1_and_a_mistyped_time_with_2(
    run: Run, gateway: Gateway
) -> None:
    gateway.answers = [(409, {"detail": "another override of sales is at that time"})]
    assert run("oncall", "override", "sales", "ewa", "--until", "8h").exit_code == 1
    assert run("oncall", "override", "sales", "ewa", "--until", "soon").exit_code == 2


def test_an_override_is_removed_by_its_number(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"removed": 7})]

    done = run("oncall", "remove", "7")

    assert (done.exit_code, gateway.asked[0][:2]) == (0, ("DELETE", "/api/oncall/overrides/7"))
