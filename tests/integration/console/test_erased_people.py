"""Whoever has been disabled for a year is erased; the record keeps a number."""

import pytest
from psycopg2.errors import InsufficientPrivilege

from libs.common.database import postgres
from services.console.people.people import erase_disabled
from tests.integration.console.conftest import REASON, Console, Reader
from tests.integration.console.test_people import EVA, invite, joined
from tests.support.consumers import until

ADAM = {"email": "adam@example.com", "name": "Adam", "roles": ["admin"]}
OLD = "actor_kind = 'staff' AND at < now() - interval '1 year'"
PIOTR = {"email": "piotr@example.com", "name": "Piotr", "roles": ["viewer"]}


def number(console: Console, name: str) -> str:
    (row,) = console.query("SELECT id FROM staff WHERE name = %s", name)
    return str(row.id)


def age(console: Console, days: int) -> None:
    """Let all that happened until now have happened so long ago."""
    console.query(
        "ALTER TABLE staff_action DISABLE TRIGGER ALL; "
        "UPDATE staff_action SET at = at - make_interval(days => %s); "
        "ALTER TABLE staff_action ENABLE TRIGGER ALL; "
        "UPDATE staff SET disabled_at = disabled_at - make_interval(days => %s)",
        days, days,
    )  # fmt: skip


async def disable(console: Console, staff_id: str) -> None:
    done = await console.call("POST", f"/api/staff/{staff_id}/disable", REASON)
    assert done.status == 200, done


def holds(console: Console, *said: str) -> set[str]:
    """Return the tables with one of these texts in them; the outbox has mails that wait."""
    tables = console.query(
        "SELECT table_name AS name FROM information_schema.tables "
        "WHERE table_schema = 'console' AND table_name <> 'outbox'"
    )
    return {
        each.name
        for each in tables
        for row in console.query(f"SELECT t::text AS line FROM {each.name} t")
        if any(text.lower() in row.line.lower() for text in said)
    }


async def test_a_person_disabled_for_a_year_is_a_number(console: Console) -> None:
    eva = await joined(console)
    adam, _ = await joined(console, **ADAM), await joined(console, **PIOTR)
    ids = {name: number(console, name) for name in ("Adam", "Piotr")}
    made = await adam.post("/console/me/language", language="pl")
    assert made.status == 303
    key = (await console.create()).body["id"]
    console.query(
        "UPDATE api_key SET created_by = %s WHERE id = %s", f"staff:{ids['Adam']} Adam", key
    )
    await disable(console, ids["Adam"])
    age(console, 2)
    await disable(console, ids["Piotr"])
    age(console, 364)
    gateway = Reader(console, "a/0")
    await gateway.sync()
    rest = "SELECT id, action, at, actor_id, object_ref FROM staff_action ORDER BY id"
    acts = console.query(rest)
    assert holds(console, "adam") == {"staff", "staff_action", "api_key"}

    console.kill9()
    await console.start()
    await until(lambda: holds(console, "adam") == set(), 30)
    named = f"#{ids['Adam'][:8]}"
    (adams,) = console.query("SELECT name, email FROM staff WHERE id = %s", ids["Adam"])
    assert (adams.name, adams.email) == (named, ids["Adam"])
    seen = console.query("SELECT DISTINCT actor_name AS name FROM staff_action ORDER BY 1")
    assert [each.name for each in seen] == [named, "Ewa", "Piotr", None]
    assert acts == console.query(rest)
    assert await gateway.sync() == 204  # what gateways keep of people for a restore is the same
    assert (await eva.log_in()).status == 303
    assert holds(console, "piotr") == {"staff", "staff_action"}
    for act, body in (("roles", {"roles": ["viewer"]}), ("disable", REASON), ("reset-factor", {})):
        refused = await console.call("POST", f"/api/staff/{ids['Adam']}/{act}", body)
        assert refused.status == 404, act
    await invite(console, **ADAM)
    assert number(console, "Adam") != ids["Adam"]
    await invite(console, **PIOTR)
    assert number(console, "Piotr") == ids["Piotr"]  # not a year yet: they are taken back


async def test_nobody_is_erased_while_a_restored_database_is_not_accepted(console: Console) -> None:
    await joined(console)
    await joined(console, **ADAM)
    await disable(console, number(console, "Adam"))
    age(console, 366)
    console.query("INSERT INTO key_restore (epoch, version) VALUES ('another', 1)")
    async with postgres.connect(str(console.database), application_name="test") as engine:
        await erase_disabled(engine)
        assert "staff" in holds(console, "adam@example.com")
        console.query("UPDATE key_restore SET accepted_at = now()")
        await erase_disabled(engine)
    assert holds(console, "adam@example.com") == set()
    assert holds(console, str(EVA["email"])) == {"staff"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("actor_name = '#' || left(actor_id, 8)", "at > now() - interval '1 year'"),
        ("actor_name = 'Piotr'", OLD),
        ("actor_name = '#' || left(actor_id, 8), outcome = 'x'", OLD),
        ("actor_name = '#' || left(actor_id, 8)", "actor_kind = 'env'"),
    ],
)
async def test_nothing_else_of_the_record_changes(
    console: Console, change: str, where: str
) -> None:
    await joined(console)
    age(console, 366)
    await joined(console, **PIOTR)
    with pytest.raises(InsufficientPrivilege, match="append-only"):
        console.query(f"UPDATE staff_action SET {change} WHERE {where}")
