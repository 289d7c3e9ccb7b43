from services.console.http.inbox import PARTS
from services.console.person import Role
from services.gateway.scopes import STAFF
from tests.support.routes import route_table


def test_each_part_is_asked_for_those_whom_the_gateway_lets_see_it() -> None:
    routes = route_table()
    for part in PARTS:
        scope = routes["get", part.path].scope
        assert {*part.roles} == {role for role in Role if scope in STAFF[role]}, part.path
