"""The leads on the command line."""

from typing import Any

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

LEAD: dict[str, Any] = {
    "id": "9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c", "topic": "lead", "state": "new", "score": 85,
    "name": "Ala Nowak", "phone": "+48600700800", "email": None, "city": "Kraków",
    "wish": "remont kuchni", "created_at": "2026-11-25T10:15:30+00:00",
}  # fmt: skip


def test_a_list_of_leads_fits_80_columns(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"items": [LEAD], "next_cursor": None})]

    done = run("leads", "list", "--state", "new")

    assert done.exit_code == 0
    method, path, _, headers = gateway.asked[0]
    assert (method, path) == ("GET", "/api/leads?limit=20&state=new")
    assert "X-API-KEY" in {name.upper() for name in headers}
    assert LEAD["id"] in done.stdout
    assert "Ala Nowak" in done.stdout
    assert fits(done.stdout)


def test_a_lead_is_taken_with_a_reason(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, LEAD | {"state": "taken"})]

    done = run("leads", "set", LEAD["id"], "taken", "--reason", "Ola calls today")

    assert done.exit_code == 0
    assert gateway.asked[0][1:3] == (
        f"/api/leads/{LEAD['id']}/state", {"state": "taken", "reason": "Ola calls today"},
    )  # fmt: skip
    assert "is taken" in done.stdout
