from services.console.pages.start import PARTS
from services.console.rules import Role
from services.gateway.door.scopes import STAFF
from tests.support.routes import route_table


def test_each_part_is_asked_for_those_whom_the_gateway_lets_see_it() -> None:
    routes = route_table()
    for path in {part.path for part in PARTS}:
        scope = routes["get", path].scope
        asked = {role for part in PARTS if part.path == path for role in part.roles}
        assert asked == {role for role in Role if scope in STAFF[role]}, path


def test_a_ledger_that_does_not_add_up_and_a_mail_to_on_call_that_does_not_leave_are_told() -> None:
    (ledger,) = [part.rows for part in PARTS if part.name == "ledger"]
    failed = "/console/alerts?state=failed&event_type=escalation"
    for ok, seconds, told in (
        (True, 1799.0, []),
        (False, 0.0, [("ledger", 1, None)]),
        (None, 3700.0, [("escalations", 61, failed)]),
    ):
        found = ledger({"ok": ok, "escalation_unsent_seconds": seconds})
        assert [row for row in found if row[1]] == told
