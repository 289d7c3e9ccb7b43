"""A console whose database was restored from a backup: nobody gets back what was taken since."""

from services.console.texts import TEXTS
from tests.integration.console.conftest import REASON, Console, Reader
from tests.integration.console.test_people import Browser, invite, joined
from tests.support.eventually import eventually
from tests.support.staff import PASSWORD

TABLES = ("staff", "staff_credential", "staff_session", "invitation", "key_version")
ACCEPT = "/api/keys/accept-restore"
NEW = "bardzo stare kalosze babci"


def back_up(console: Console) -> None:
    for table in TABLES:
        console.query(
            f"CREATE SCHEMA IF NOT EXISTS backup; CREATE TABLE backup.{table} AS TABLE {table}"
        )


async def restore(console: Console) -> None:
    console.kill9()
    emptied = "; ".join(f"DELETE FROM {table}" for table in reversed(TABLES))
    filled = "; ".join(f"INSERT INTO {table} TABLE backup.{table}" for table in TABLES)
    console.query(f"{emptied}; {filled}")
    await console.start()


async def test_people_of_a_restored_database_wait_and_get_nothing_back(console: Console) -> None:
    eva = await joined(console)
    adam = await joined(console, email="adam@example.com", name="Adam", roles=["viewer"])
    piotr = await joined(console, email="piotr@example.com", name="Piotr", roles=["sales"])
    marek = await joined(console, email="marek@example.com", name="Marek", roles=["sales", "ops"])
    invited = await invite(console, email="zofia@example.com", name="Zofia", roles=["sales"])
    ids = {row.name: str(row.id) for row in console.query("SELECT id, name FROM staff")}
    back_up(console)
    old = {who: Browser(console) for who in ("eva", "adam", "piotr", "marek")}
    for who, browser in (("eva", eva), ("adam", adam), ("piotr", piotr), ("marek", marek)):
        old[who].cookies = dict(browser.cookies)

    await console.call("POST", f"/api/staff/{ids['Adam']}/disable", REASON)
    await console.call("POST", f"/api/staff/{ids['Marek']}/roles", {"roles": ["sales"]})
    assert (await marek.get("/console/alerts")).status == 403
    assert (await piotr.post("/console/me/password", password=PASSWORD, new=NEW)).status == 303
    assert (await Browser(console).post(invited, password=PASSWORD)).status == 303
    await eva.post("/console/logout")
    gateway = Reader(console, "a/0")
    await gateway.sync()
    assert "Adam" not in str(gateway.people)
    await restore(console)
    assert (await old["adam"].get("/console/me")).status == 200  # until a gateway has asked
    assert [await gateway.sync() for _ in range(2)] == [409, 409]

    for browser in old.values():
        assert (await browser.get("/console/me")).body == "/console/login?next=/console/me"
    for refused in (
        await adam.log_in("adam@example.com"),
        await eva.log_in(),
        await Browser(console).post(invited, password=PASSWORD),
    ):
        assert (refused.status, TEXTS["pl"]["restored_text"] in refused.body) == (503, True)
    roles = {"roles": ["viewer", "admin"]}
    changed = await console.call("POST", f"/api/staff/{ids['Adam']}/roles", roles)
    assert changed.status == 409

    shown = await console.call("POST", ACCEPT, {})
    names = ("Adam", "Marek", "Piotr", "Zofia")
    assert shown.body["people"] == {ids[name]: name for name in names}
    accepted = await console.call("POST", ACCEPT, {"confirm": True})
    assert accepted.body["people"] == shown.body["people"]
    for browser in old.values():
        assert (await browser.get("/console/me")).status == 303
    assert (await Browser(console).post(invited, password=PASSWORD)).status == 410
    for who, password in (
        ("adam", PASSWORD), ("piotr", PASSWORD), ("piotr", NEW), ("marek", PASSWORD),
    ):  # fmt: skip
        refused = await piotr.log_in(f"{who}@example.com", password=password)
        assert refused.status == 403, who
    assert (await eva.log_in(step=1)).status == 303  # nothing of hers was another before
    piotr = await joined(console, email="piotr@example.com", name="Piotr", roles=["sales"])
    assert (await piotr.get("/console/me")).status == 200


async def test_work_of_people_waits_for_a_restored_database(console: Console) -> None:
    eva = await joined(console, roles=["ops"])
    gateway = Reader(console, "a/0")
    await gateway.sync()
    (row,) = console.query("SELECT id FROM staff")
    back_up(console)
    await console.call("POST", f"/api/staff/{row.id}/disable", REASON)
    await gateway.sync()
    await restore(console)
    assert [await gateway.sync() for _ in range(2)] == [409, 409]
    await gateway.leave()
    console.kill9()
    console.query(
        "INSERT INTO bulk_action (id, staff_id, verb, filter, reason, expected) "
        "VALUES (gen_random_uuid(), %s, 'retry', '{}', 'as before', 1)",
        row.id,
    )
    await console.start()  # its worker looks before it answers anybody
    assert (await eva.get("/console/")).status == 303
    assert console.query("SELECT lease_until FROM bulk_action") == [(None,)]

    async def refused() -> bool:
        (bulk,) = console.query("SELECT state FROM bulk_action")
        return bool(bulk.state == "refused")

    await console.call("POST", ACCEPT, {"confirm": True})
    await eventually(refused)  # whoever began it is blocked
