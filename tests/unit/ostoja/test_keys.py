"""`ostoja keys`: what it asks, prints and returns."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

ID, SECRET = "ABCDEFGHIJ", "osk_ABCDEFGHIJ_x"
WAITING = [{"process": "host:8080/0", "seen_at": "2026-11-27T16:00:00+00:00"}]


def key(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "id": ID,
        "name": "the web shop of the company",
        "owner": "Ewa Kowalska",
        "state": "in force",
        "scopes": ["alerts:write", "followups:write"],
        "expires_at": (now + timedelta(days=300)).isoformat(),
        "revoked_at": None,
        "last_used_at": (now - timedelta(hours=3)).isoformat(),
        "calls": 1_234_567,
        **changes,
    }


def test_keys_are_listed_within_80_columns_with_a_note_of_a_restore(
    run: Run, gateway: Gateway
) -> None:
    gateway.answers = [(200, {"items": [key(), key(last_used_at=None)], "restored": {"lost": 1}})]

    done = run("keys")

    assert gateway.asked[0][:2] == ("GET", "/api/keys")
    assert ID in done.stdout
    assert fits(done.stdout)
    assert "accept-restore" in done.stderr


def test_a_new_key_alone_is_on_stdout(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(202, {"id": ID, "key": SECRET, "in_force_on": 1, "waiting_for": WAITING})]

    done = run("keys", "create", "shop", "--scope", "alerts:write", "--purpose", "orders",
               "--owner", "Ewa", "--days", "30")  # fmt: skip

    assert (done.exit_code, done.stdout.strip()) == (0, SECRET)
    assert "host:8080/0" in done.stderr
    body = gateway.asked[0][2]
    assert body["scopes"] == ["alerts:write"]
    left = datetime.fromisoformat(body["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_a_revocation_fails_until_every_gateway_has_it(run: Run, gateway: Gateway) -> None:
    gateway.answers = [
        (202, {"in_force_on": 1, "waiting_for": WAITING}),
        (200, {"in_force_on": 2}),
    ]
    revoke = ("keys", "revoke", ID, "--reason", "stolen")

    first, second = run(*revoke), run(*revoke)

    assert (first.exit_code, second.exit_code) == (1, 0)
    assert "host:8080/0" in first.stderr
    assert gateway.asked[0][1:3] == (f"/api/keys/{ID}/revoke", {"reason": "stolen"})


def test_a_restore_is_accepted_only_after_a_yes(run: Run, gateway: Gateway) -> None:
    lacking: dict[str, Any] = {"noticed_at": "x", "revoked": [ID], "lost": 2, "reported": False}
    lacking |= {"people": {"5f0c": "Adam Lis"}}
    gateway.answers = [(200, lacking)]

    refused = run("keys", "accept-restore", said="n\n")

    assert refused.exit_code == 1
    assert ID in refused.stdout
    assert "Adam Lis (5f0c)" in refused.stdout
    assert [each[2] for each in gateway.asked] == [{}]
    gateway.answers = [(200, lacking), (200, {**lacking, "in_force_on": 2})]
    assert run("keys", "accept-restore", "--yes").exit_code == 0
    assert gateway.asked[-1][2] == {"confirm": True}
