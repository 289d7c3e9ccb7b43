import asyncio
import hashlib
import random
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import psycopg2
import pytest

from tests.integration.console.conftest import (
    QUICK,
    REASON,
    Console,
    NewReader,
    Reader,
    stopping_at,
)
from tests.support.consumers import until
from tests.support.eventually import eventually
from tests.support.service import Answer

pytestmark = pytest.mark.promise("P12")


def digest(answer: Answer) -> str:
    return hashlib.sha256(answer.body["key"].encode()).hexdigest()


async def test_a_key_is_in_force_on_every_gateway_when_it_is_answered(
    console: Console, running: NewReader
) -> None:
    readers = [running("a/0"), running("a/1")]
    await until(lambda: all(reader.version for reader in readers))
    made = await console.create(networks=["10.0.0.0/8"], limits=["600 per minute"])
    assert (made.status, made.body["in_force_on"]) == (201, 2)
    assert made.body["key"].startswith(f"osk_{made.body['id']}_")
    for reader in readers:
        assert reader.digests == {digest(made)}
    listed = await console.listed(made.body["id"])
    assert (listed["state"], listed["networks"]) == ("in force", ["10.0.0.0/8"])
    assert made.body["key"] not in str(listed)
    (act,) = console.query("SELECT * FROM staff_action")
    assert (act.action, act.object_ref) == ("key.create", made.body["id"])


@pytest.mark.quick
async def test_a_revocation_is_answered_200_once_no_gateway_has_the_key(
    console: Console, running: NewReader
) -> None:
    reader = running("a/0")
    made = await console.create()
    await until(lambda: digest(made) in reader.digests)
    revoked = await console.call("POST", f"/api/keys/{made.body['id']}/revoke", REASON)
    assert (revoked.status, revoked.body["in_force_on"]) == (200, 1)
    assert digest(made) not in reader.digests
    # Alerts pauses the subscriptions that it made; while alerts is away, the outbox waits.
    told = console.query("SELECT body FROM outbox WHERE type = 'key.revoked'")
    assert [each.body["key"] for each in told] == [made.body["id"]]
    (act,) = console.query("SELECT * FROM staff_action WHERE action = 'key.revoke'")
    assert (act.actor_kind, act.reason, act.outcome) == ("env", REASON["reason"], "done")


@pytest.mark.quick
async def test_a_gateway_that_does_not_confirm_is_named_until_it_does(console: Console) -> None:
    made = await console.create()
    await console.hurry()
    silent = Reader(console, "frozen/0")
    await silent.sync()
    path = f"/api/keys/{made.body['id']}/revoke"
    revoked = await console.call("POST", path, REASON)
    assert revoked.status == 202
    assert [each["process"] for each in revoked.body["waiting_for"]] == ["frozen/0"]
    await silent.sync()  # it gets the keys, but has not said that it has them
    assert (await console.call("POST", path, REASON)).status == 202
    await silent.sync()
    again = await console.call("POST", path, REASON)
    assert (again.status, again.body["in_force_on"]) == (200, 1)
    assert len(console.query("SELECT 1 FROM staff_action WHERE action = 'key.revoke'")) == 1


async def test_a_gateway_that_said_goodbye_is_not_waited_for(console: Console) -> None:
    made = await console.create()
    leaving = Reader(console, "a/0")
    await leaving.sync()
    await leaving.leave()
    revoked = await console.call("POST", f"/api/keys/{made.body['id']}/revoke", REASON)
    assert (revoked.status, revoked.body["in_force_on"]) == (200, 0)


@pytest.mark.parametrize(("unseen", "status"), [(5, 202), (40, 200)])
async def test_a_successor_replaces_a_process_that_was_not_seen_for_30_s(
    console: Console, unseen: int, status: int
) -> None:
    made = await console.create()
    await console.hurry()
    for instance in ("killed", "successor"):
        await Reader(console, "a/0", instance).sync()
    console.query(
        "UPDATE key_reader SET seen_at = now() - make_interval(secs => %s) "
        "WHERE instance = 'killed'",
        unseen,
    )
    console.query("UPDATE key_reader SET version = %s WHERE instance = 'successor'", 2**52)
    revoked = await console.call("POST", f"/api/keys/{made.body['id']}/revoke", REASON)
    assert revoked.status == status


async def test_the_time_in_which_the_console_was_away_does_not_count_as_unseen(
    console: Console,
) -> None:
    made = await console.create()
    await Reader(console, "a/0").sync()
    console.kill9()
    console.query("UPDATE key_reader SET seen_at = now() - interval '1 hour'")
    await console.hurry()
    revoked = await console.call("POST", f"/api/keys/{made.body['id']}/revoke", REASON)
    assert (revoked.status, len(revoked.body["waiting_for"])) == (202, 1)


async def test_no_gateway_has_a_key_after_the_200_of_its_revocation(console: Console) -> None:
    """Processes come, go and return with new instances while keys are made and revoked."""
    await console.hurry()
    chance = random.Random(20)
    readers: dict[str, Reader] = {}

    async def live(name: str) -> None:
        while True:
            reader = readers[name] = Reader(console, name, f"{chance.random()}")
            stay = chance.uniform(0.05, 1.5)
            with suppress(TimeoutError):
                async with asyncio.timeout(stay):
                    while True:
                        await reader.sync(20)
            # Its last request may still be under way at the console: it serves nothing from now on.
            del readers[name]
            await reader.leave()

    tasks = [asyncio.create_task(live(f"host/{number}")) for number in range(4)]
    answered = 0
    try:
        for _ in range(12):
            made = await console.create()
            revoked = await console.call("POST", f"/api/keys/{made.body['id']}/revoke", REASON)
            if revoked.status == 200:
                answered += 1
                holding = [name for name, one in readers.items() if digest(made) in one.digests]
                assert holding == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert answered


SLOW_READ = f"""
import asyncio
from services.console.keys.sync import Sync
read = Sync._newer
async def slowly(*arguments):
    found = await read(*arguments)
    print("stopped", flush=True)
    await asyncio.sleep(3)
    return found
Sync._newer = slowly
{QUICK}
"""


async def test_a_revocation_waits_for_a_process_that_is_just_reading_the_keys(
    console: Console,
) -> None:
    made = await console.create()
    console.environment["CONFIRM_SECONDS"] = "1"
    console.kill9()
    await console.start(SLOW_READ)
    starting = Reader(console, "a/0")
    reading = asyncio.create_task(starting.sync())
    await console.stopped()  # it has read, and has no answer yet
    revoked = await console.call("POST", f"/api/keys/{made.body['id']}/revoke", REASON)
    await reading
    assert digest(made) in starting.digests
    assert revoked.status == 202


async def test_after_a_rotation_both_secrets_open_until_the_overlap_ends(console: Console) -> None:
    made = await console.create()
    path = f"/api/keys/{made.body['id']}/rotate"
    rotated = await console.call("POST", path, {"overlap_hours": 2})
    assert (rotated.status, rotated.body["id"]) == (200, made.body["id"])
    reader = Reader(console, "a/0")
    await reader.sync()
    assert reader.digests == {digest(made), digest(rotated)}
    ends = [
        datetime.fromisoformat(each) for each in (await console.listed(made.body["id"]))["secrets"]
    ]
    assert ends[0] - datetime.now(UTC) < timedelta(hours=2) < ends[1] - datetime.now(UTC)
    # A second rotation with a longer overlap prolongs nothing; one without ends all before.
    await console.call("POST", path, {"overlap_hours": 48})
    assert (await console.listed(made.body["id"]))["secrets"][0] == ends[0].isoformat()
    last = await console.call("POST", path, {"overlap_hours": 0})
    await reader.sync()
    assert reader.digests == {digest(last)}


async def test_use_is_summed_and_the_latest_time_kept(console: Console) -> None:
    made = await console.create()
    reader = Reader(console, "a/0")
    late, early = "2026-11-27T12:00:00+00:00", "2026-11-27T11:00:00+00:00"
    for at, calls in ((late, 3), (early, 4)):
        reader.used = [{"id": made.body["id"], "at": at, "calls": calls}]
        await reader.sync()
    listed = await console.listed(made.body["id"])
    assert listed["calls"] == 7
    assert datetime.fromisoformat(listed["last_used_at"]) == datetime.fromisoformat(late)


BEFORE_COMMIT, AFTER_COMMIT = "record.act", "keys.Keys._confirmed"


@pytest.mark.parametrize("act", ["rotate", "revoke"])
@pytest.mark.parametrize("where", [BEFORE_COMMIT, AFTER_COMMIT])
async def test_a_console_killed_in_a_change_leaves_it_whole_or_not_begun(
    console: Console, act: str, where: str
) -> None:
    made = await console.create()
    key_id = made.body["id"]
    body: dict[str, Any] = {"overlap_hours": 1} if act == "rotate" else REASON
    reader = Reader(console, "a/0")
    await reader.sync()
    console.kill9()
    await console.start(stopping_at(where))
    changing = asyncio.create_task(console.call("POST", f"/api/keys/{key_id}/{act}", body))
    await console.stopped()
    console.kill9()
    with pytest.raises(aiohttp.ClientError):
        await changing
    await console.start()
    changed = where == AFTER_COMMIT
    acts = console.query("SELECT 1 FROM staff_action WHERE action = %s", f"key.{act}")
    assert len(acts) == changed
    assert await reader.sync() == (200 if changed else 204)
    if act == "revoke":
        assert (digest(made) in reader.digests) is not changed
    else:
        assert len(reader.digests) == 1 + changed  # the lost secret, which nobody knows
    task = asyncio.create_task(reader.run())
    again = await console.call("POST", f"/api/keys/{key_id}/{act}", body)
    task.cancel()
    assert again.status == 200
    if act == "rotate":
        assert digest(again) in reader.digests
    else:
        assert reader.digests == set()


async def test_a_stop_ends_the_calls_that_wait(console: Console) -> None:
    reader = Reader(console, "a/0")
    await reader.sync()
    waiting = asyncio.create_task(reader.sync(20))

    async def noted() -> bool:
        query = "SELECT 1 FROM key_reader WHERE version = %s"
        return bool(console.query(query, reader.version))

    await eventually(noted)
    assert await console.stop() == 0
    assert await waiting == 204


async def test_a_restored_database_gives_no_keys_until_that_is_accepted(console: Console) -> None:
    kept, revoked = await console.create(), await console.create(name="leaked")
    backup = console.query("SELECT max(version) AS version FROM key_version")[0].version
    await console.call("POST", f"/api/keys/{revoked.body['id']}/revoke", REASON)
    since = await console.create(name="made since")
    gateway = Reader(console, "a/0")
    await gateway.sync()
    assert gateway.digests == {digest(kept), digest(since)}
    console.kill9()
    for statement in (
        "UPDATE api_key SET revoked_at = NULL",
        "DELETE FROM api_key_digest WHERE added_in > %s",
        "DELETE FROM key_version WHERE version > %s",
        "DELETE FROM key_reader",
    ):
        console.query(statement, *[backup] * statement.count("%s"))
    console.query("DELETE FROM api_key WHERE id = %s", since.body["id"])
    await console.start()

    assert await gateway.sync() == 409
    assert await gateway.sync() == 409  # now it says what it has
    other = Reader(console, "b/0")
    assert await other.sync() == 409
    await other.leave()
    assert (await console.create()).status == 409
    deep = await console.call("GET", "/health/deep")
    assert deep.body["status"] == "unhealthy"

    path = "/api/keys/accept-restore"
    shown = await console.call("POST", path, {})
    assert (shown.body["revoked"], shown.body["lost"]) == ([revoked.body["id"]], 1)
    assert await gateway.sync() == 409
    epoch = gateway.epoch
    task = asyncio.create_task(gateway.run())
    accepted = await console.call("POST", path, {"confirm": True})
    task.cancel()
    assert (accepted.status, accepted.body["revoked"]) == (200, [revoked.body["id"]])
    assert gateway.epoch > epoch
    assert gateway.digests == {digest(kept)}
    assert (await console.listed(revoked.body["id"]))["state"] == "revoked"
    assert (await console.call("POST", path, {"confirm": True})).status == 409


IMPOSSIBLE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"scopes": ["alerts:fly"]}, "scopes.0"),
    ({"scopes": []}, "scopes"),
    ({"expires_at": None}, "expires_at"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"expires_at": "2100-01-01T00:00:00Z"}, "expires_at"),
    ({"purpose": ""}, "purpose"),
    ({"name": "a\nb"}, "name"),
    ({"limits": ["often"]}, "limits.0"),
    ({"limits": ["5 per minute", "6 per minute"]}, "body"),
    ({"networks": ["10.0.0.1/8"]}, "networks.0"),
)


async def test_a_key_that_cannot_be_is_refused_and_nothing_changes(console: Console) -> None:
    for changes, field in IMPOSSIBLE:
        refused = await console.create(**changes)
        assert refused.status == 422, changes
        assert [each["field"] for each in refused.body["errors"]] == [field], changes
    assert console.query("SELECT 1 FROM api_key") == []


async def test_a_revocation_needs_a_reason_and_a_key_that_exists(console: Console) -> None:
    made = await console.create()
    path = f"/api/keys/{made.body['id']}/revoke"
    assert (await console.call("POST", path, {})).status == 422
    assert (await console.call("POST", "/api/keys/ABCDEFGHIJ/revoke", REASON)).status == 404
    assert (await console.call("POST", path, REASON, caller="service")).status == 401
    assert (await console.listed(made.body["id"]))["state"] == "in force"
    assert (await console.call("POST", path, REASON)).status == 200
    again = await console.call("POST", path.replace("revoke", "rotate"), {})
    assert (again.status, "revoked" in again.body["detail"]) == (409, True)


async def test_nobody_changes_the_record(console: Console) -> None:
    await console.create()
    for url in (str(console.database).replace("+aiopg", ""), console.database.owner_url):
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            for statement in (
                "UPDATE staff_action SET reason = 'another'",
                "DELETE FROM staff_action",
                "TRUNCATE staff_action",
            ):
                with (
                    connection.cursor() as cursor,
                    pytest.raises(psycopg2.errors.InsufficientPrivilege),
                ):
                    cursor.execute(statement)
