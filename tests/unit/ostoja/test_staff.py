"""`ostoja staff` and `ostoja actions`: what they ask, print and return."""

from typing import Any

from tests.support.cli import fits
from tests.unit.ostoja.conftest import Gateway, Run

ID = "5f0c3a52-0f0d-4c3b-8a44-1f6d3a1f2b7c"
LINK = "https://ostoja.example.com/console/invitation/x"
PERSON = {
    "id": ID,
    "name": "Ewa Kowalska-Wiśniewska",
    "email": "ewa.kowalska-wisniewska@example.com",
    "roles": ["sales", "ops"],
    "joined": False,
    "disabled": False,
}


def test_people_are_listed_within_80_columns_with_their_state(run: Run, gateway: Gateway) -> None:
    joined, gone = PERSON | {"joined": True}, PERSON | {"joined": True, "disabled": True}
    gateway.answers = [(200, {"items": [PERSON, joined, gone]})]

    done = run("staff")

    assert gateway.asked[0][:2] == ("GET", "/api/staff")
    assert fits(done.stdout)
    assert [done.stdout.count(each) for each in (ID, "invited", "joined", "disabled")] == [
        3,
        1,
        1,
        1,
    ]


def test_a_link_is_mailed_or_if_asked_for_alone_on_stdout(run: Run, gateway: Gateway) -> None:
    shown, mailed = (201, {"id": ID, "link": LINK}), (201, {"id": ID, "link": None})
    gateway.answers = [mailed, mailed, shown, shown]
    ewa = ("staff", "invite", "ewa@example.com", "--name", "Ewa", "--role", "sales")
    again = ("staff", "invite-again", ID)

    done = [run(*ewa), run(*again), run(*ewa, "--show-link"), run(*again, "--show-link")]

    assert ["mailed" in each.stdout for each in done[:2]] == [True, True]
    assert [each.stdout.strip() for each in done[2:]] == [LINK, LINK]
    body = {"email": "ewa@example.com", "name": "Ewa", "roles": ["sales"], "language": "pl"}
    path, show = f"/api/staff/{ID}/invitation", {"show_link": True}
    asked = [("/api/staff", body), (path, {}), ("/api/staff", body | show), (path, show)]
    assert [each[1:3] for each in gateway.asked] == asked


def test_a_lost_second_factor_is_removed(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"reset": True})]

    done = run("staff", "reset-factor", ID)

    assert (done.exit_code, ID in done.stdout) == (0, True)
    assert gateway.asked[0][1] == f"/api/staff/{ID}/reset-factor"


def test_roles_are_replaced_and_the_last_admin_stays(run: Run, gateway: Gateway) -> None:
    gateway.answers = [
        (200, {"roles": ["viewer", "ops"]}),
        (409, {"detail": "this is the last admin who can log in; make another one first"}),
    ]

    changed = run("staff", "roles", ID, "--role", "viewer", "--role", "ops")
    refused = run("staff", "disable", ID, "--reason", "has left")

    assert (changed.exit_code, "viewer, ops" in changed.stdout) == (0, True)
    assert (refused.exit_code, "last admin" in refused.stderr) == (1, True)
    assert gateway.asked[1][1:3] == (f"/api/staff/{ID}/disable", {"reason": "has left"})


def test_the_record_is_read_page_by_page(run: Run, gateway: Gateway) -> None:
    act: dict[str, Any] = {
        "at": "2026-11-27T16:00:00Z",
        "actor_kind": "staff",
        "actor_id": ID,
        "actor_name": "Ewa",
        "action": "key.revoke",
        "object_ref": "ABCDEFGHIJ",
        "reason": None,
    }
    claimed = act | {"actor_kind": "env", "actor_id": "ADMIN_API_KEY", "actor_name": "ola"}
    gateway.answers = [
        (200, {"items": [act], "next_cursor": "2026-11-27T16:00:00Z"}),
        (200, {"items": [claimed, act], "next_cursor": None}),
    ]

    done = run("actions", "--limit", "2")

    assert fits(done.stdout)
    assert done.stdout.count("key.revoke") == 2
    assert "ola (ADMIN_API_KEY)" in " ".join(done.stdout.split())
    assert gateway.asked[1][1] == "/api/actions?limit=1&cursor=2026-11-27T16%3A00%3A00Z"
