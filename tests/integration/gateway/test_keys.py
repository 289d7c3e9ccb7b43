"""Keys of one's own at the gateway: what they open, where they come from, and when they end."""

import asyncio
import hmac
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio
from aiohttp import web

from services.gateway.door.key_store import KEYS_IN_REDIS, REDIS_KEY, Kept, KeysInRedis
from tests.integration.gateway.conftest import (
    ADMIN,
    NOBODY,
    SERVICE,
    Gateway,
    Owner,
    StartGateway,
    workers_of,
)
from tests.support.console import INTERNAL_KEY, Console, api_key
from tests.support.consumers import until
from tests.support.eventually import becomes, eventually
from tests.support.pipelines import pipeline

pytestmark = pytest.mark.promise("P12")

CRM, FORMER = "AAAAAAAAAA", "BBBBBBBBBB"
TEXT, FORMER_TEXT = f"osk_{CRM}_crm", f"osk_{FORMER}_former"
OWN = {"X-API-KEY": TEXT}
STATUS = "/api/alerts/1"
ALERT = {"event_type": "slack_alert", "payload": {"text": "x"}}


@pytest.fixture
async def console() -> AsyncIterator[Console]:
    console = Console(port=0)
    console.change(api_key(CRM, TEXT, "alerts:read", "alerts:write"))
    await console.start()
    yield console
    await console.stop()


def settings(console: Console, file: Path, **more: str) -> dict[str, str]:
    return {
        "CONSOLE_URL": console.url,
        "CONSOLE_INTERNAL_KEY": INTERNAL_KEY,
        "KEYS_STATE_FILE": str(file),
    } | more


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def kept(file: Path) -> Any:
    return json.loads(file.read_text())


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def block(path: Path) -> None:
    """Let no one write a file there, not even root."""
    (path / "x").mkdir(parents=True)


def unblock(path: Path) -> None:
    (path / "x").rmdir()
    path.rmdir()


async def status(gateway: Gateway, text: str = TEXT, path: str = STATUS) -> int:
    return (await gateway.call("GET", path, **{"X-API-KEY": text})).status


async def test_a_key_opens_what_its_scopes_say_and_is_named_to_the_owners(
    start_gateway: StartGateway, console: Console, owner: Owner, file: Path
) -> None:
    gateway = await start_gateway(**settings(console, file))
    assert await status(gateway) == 200
    headers = owner.received[-1]["headers"]
    assert (headers["X-Caller"], headers["X-Operator"]) == ("service", f"key:{CRM}")
    assert "X-API-KEY" not in headers
    claimed = await gateway.call("GET", STATUS, **OWN, **{"X-Operator": "the owner"})
    assert claimed.status == 200
    assert owner.received[-1]["headers"]["X-Operator"] == f"key:{CRM}"
    refused = await gateway.call("GET", "/api/dlq/stats", **OWN)
    assert (refused.status, refused.body["detail"]) == (403, "this needs the scope dlq:read")
    console.change(api_key(CRM, TEXT, "dlq:read", networks=["203.0.113.0/24"]))
    elsewhere = {"status": 403, "detail": "this key is not for your network"}

    await eventually(
        lambda: gateway.call("GET", "/api/dlq/stats", **OWN),
        so=lambda answer: elsewhere.items() <= answer.body.items(),
    )
    console.change(api_key(CRM, TEXT, "dlq:read", networks=["127.0.0.0/8"]))
    await becomes(lambda: status(gateway, path="/api/dlq/stats"), 200)
    assert owner.received[-1]["headers"]["X-Caller"] == "admin"


async def test_unknown_expired_and_revoked_keys_are_refused_with_one_text(
    start_gateway: StartGateway, console: Console, file: Path
) -> None:
    past = "2020-01-01T00:00:00+00:00"
    console.change(
        api_key(FORMER, FORMER_TEXT, "alerts:read", expires_at=past),
        api_key("CCCCCCCCCC", "osk_CCCCCCCCCC_x", "alerts:read"),
    )
    console.keys["CCCCCCCCCC"]["digests"][0]["until"] = past  # its overlap is over
    gateway = await start_gateway(**settings(console, file))
    texts = []
    for text in ("osk_DDDDDDDDDD_unknown", "osk_", FORMER_TEXT, "osk_CCCCCCCCCC_x"):
        answer = await gateway.call("GET", STATUS, **{"X-API-KEY": text})
        texts.append((answer.status, answer.body["detail"]))
    assert await console.revoke(CRM)
    answer = await gateway.call("GET", STATUS, **OWN)
    texts.append((answer.status, answer.body["detail"]))
    assert set(texts) == {(401, "this requires a valid key in X-API-KEY")}
    elsewhere = await gateway.call("GET", "/api/dlq/stats", **OWN)
    assert elsewhere.body["detail"] == texts[0][1]
    assert TEXT not in gateway.log.read_text()


async def test_two_secrets_of_a_key_share_its_limit_and_its_idempotency_keys(
    start_gateway: StartGateway, console: Console, owner: Owner, file: Path
) -> None:
    key = api_key(CRM, TEXT, "alerts:write", limits=["5 per day", "100 per minute"])
    key["digests"] += api_key(CRM, "osk_of_the_rotation")["digests"]
    console.change(key, api_key(FORMER, FORMER_TEXT, "alerts:write"))
    gateway = await start_gateway(**settings(console, file))

    callers: list[str] = []

    async def taken(request: web.Request) -> web.Response:
        callers.extend(alert["caller"] for alert in (await request.json())["alerts"])
        return web.Response(status=202)

    owner.handle = taken

    async def post(text: str, key: str = "one") -> tuple[int, Any]:
        headers = {"X-API-KEY": text, "Idempotency-Key": key}
        answer = await gateway.call("POST", "/api/alerts", ALERT, **headers)
        return answer.status, answer.body

    first = await post(TEXT)
    assert first[0] == 202
    assert await post("osk_of_the_rotation") == first
    other = await post(FORMER_TEXT)
    assert other[0] == 202
    assert other[1]["id"] != first[1]["id"]
    await post("osk_of_the_rotation", "two")
    assert callers == [f"key:{CRM}", f"key:{FORMER}", f"key:{CRM}"]  # whose episodes they are
    assert [(await post(TEXT))[0] for _ in range(3)] == [202, 202, 429]
    assert (await post("osk_of_the_rotation"))[0] == 429
    assert (await post(FORMER_TEXT))[0] == 202

    async def reported() -> bool:
        console.change()  # so that it asks again
        return console.used == {CRM: 7, FORMER: 2}

    await eventually(reported)


async def test_on_open_routes_a_key_counts_as_its_scopes_say(
    start_gateway: StartGateway, console: Console, owner: Owner, file: Path
) -> None:
    console.change(api_key(CRM, TEXT, "leads:write"), api_key(FORMER, FORMER_TEXT, "alerts:read"))
    gateway = await start_gateway(**settings(console, file))
    for text, caller in ((TEXT, "service"), (FORMER_TEXT, "public")):
        headers = {"X-API-KEY": text}
        answer = await gateway.call("POST", "/api/chatbot/chat", {"message": "x"}, **headers)
        assert answer.status == 200
        assert owner.received[-1]["headers"]["X-Caller"] == caller
        await gateway.call("GET", "/api/unsubscribe/status/a@example.com", **headers)
        assert owner.received[-1]["headers"]["X-Caller"] == "public"


async def test_started_with_everything_else_away_it_takes_alerts_with_a_key_of_the_file(
    start_gateway: StartGateway, console: Console, owner: Owner, file: Path
) -> None:
    gateway = await start_gateway(**settings(console, file))
    assert await status(gateway) == 200
    assert mode(file) == 0o600
    assert TEXT not in str(kept(file))
    await gateway.stop()
    await console.stop()

    owner.say(status=202)
    nothing = {"REDIS_URL": "redis://127.0.0.1:1", "CONSENT_URL": NOBODY, "FOLLOWUPS_URL": NOBODY}
    again = await start_gateway(**settings(console, file), **nothing)
    assert (await again.call("POST", "/api/alerts", ALERT, **OWN)).status == 202
    assert await status(again, FORMER_TEXT) == 401
    console.change(api_key(FORMER, FORMER_TEXT, "alerts:read"))
    await console.start()
    await becomes(lambda: status(again, FORMER_TEXT), 202)


async def test_a_new_gateway_without_a_console_takes_the_keys_that_redis_keeps_and_no_others(
    start_gateway: StartGateway, console: Console, redis_url: str
) -> None:
    console.change(api_key(FORMER, FORMER_TEXT, "alerts:read"))
    in_redis = settings(console, KEYS_IN_REDIS)
    gateway = await start_gateway(**in_redis)
    assert await console.revoke(FORMER)  # once Redis has it
    async with redis.asyncio.from_url(redis_url) as server:
        await server.delete(REDIS_KEY)
        await eventually(lambda: server.exists(REDIS_KEY), 60)
        genuine = await server.hgetall(REDIS_KEY)
        await gateway.stop()
        await console.stop()
        again = await start_gateway(**in_redis)
        assert await status(again) == 200
        assert await status(again, FORMER_TEXT) == 401
        await again.stop()

        forged = Kept(epoch="e1", version=2**53, keys=[api_key(FORMER, FORMER_TEXT, "alerts:read")])
        text = forged.model_dump_json().encode()
        signed = hmac.digest(b"another secret 16", b"api keys\n" + text, "sha256") + text
        await server.hset(REDIS_KEY, mapping={"version": 2**53, "signed": signed})
        misled = await start_gateway(**in_redis)
        assert [await status(misled, each) for each in (TEXT, FORMER_TEXT)] == [401, 401]
        # With a console it writes over what it did not sign, and confirms.
        await console.start()
        await becomes(lambda: status(misled), 200, 30)
        assert (await server.hget(REDIS_KEY, "signed")) == genuine[b"signed"]
        assert await console.revoke(CRM)


async def test_a_newer_copy_in_redis_stays_and_an_older_one_that_was_put_back_does_not(
    redis_url: str,
) -> None:
    old, new = (Kept(epoch="e", version=version, keys=[]) for version in (1, 2))
    async with pipeline(redis_url) as pipe, redis.asyncio.from_url(redis_url) as server:
        store = KeysInRedis(pipe, INTERNAL_KEY)
        assert await store.read() is None
        for copy in (new, old):  # of a gateway that is slower
            await store.keep(copy)
        assert await store.read() == new
        await server.delete(REDIS_KEY)
        await store.keep(old)
        await server.hset(REDIS_KEY, "version", 2**53)
        await store.keep(new)
        assert await store.read() == new


async def test_denied_keys_and_locked_keys_of_the_environment_open_nothing(
    start_gateway: StartGateway, console: Console, file: Path
) -> None:
    console.change(api_key(FORMER, FORMER_TEXT, "alerts:read"))
    gateway = await start_gateway(**settings(console, file, KEYS_DENIED=f"{FORMER}, {CRM}"))
    assert await status(gateway) == 401
    assert await status(gateway, FORMER_TEXT) == 401
    assert (await gateway.call("GET", STATUS, **SERVICE)).status == 200
    locked = await start_gateway(**settings(console, file, ENV_KEYS="off"))
    assert await status(locked) == 200
    assert (await locked.call("GET", STATUS, **SERVICE)).status == 401
    assert (await locked.call("GET", "/api/dlq/stats", **ADMIN)).status == 401


async def test_a_console_behind_the_gateways_takes_no_key_away_and_gives_none_back(
    start_gateway: StartGateway, console: Console, file: Path
) -> None:
    console.people = {"5f0c": "a digest"}
    console.change(api_key(FORMER, FORMER_TEXT, "alerts:read"))
    gateway = await start_gateway(**settings(console, file))
    assert await console.revoke(FORMER)
    # A console of the release before refuses what it does not know.
    assert not any("people" in each for each in console.asked)
    backup = api_key(FORMER, FORMER_TEXT, "alerts:read")
    console.keys, console.version, console.restored = {FORMER: backup}, console.version - 1, True
    asked = len(console.asked)

    async def told() -> bool:
        said = [each for each in console.asked[asked:] if each["held"]]
        return bool(said) and said[-1]["people"] == console.people

    console.change()  # lets go who waits
    console.version -= 1
    await eventually(told)
    assert (await status(gateway), await status(gateway, FORMER_TEXT)) == (200, 401)
    console.restored = False  # as a console that does not notice
    asked = len(console.asked)
    await until(lambda: len(console.asked) > asked + 2)
    assert (await status(gateway), await status(gateway, FORMER_TEXT)) == (200, 401)
    console.epoch, console.version = "e2", console.version + 100

    async def accepted() -> bool:
        return await status(gateway) == 401 and await status(gateway, FORMER_TEXT) == 200

    await eventually(accepted)


async def test_a_gateway_that_cannot_keep_a_revocation_does_not_confirm_it(
    start_gateway: StartGateway, console: Console, file: Path
) -> None:
    gateway = await start_gateway(**settings(console, file))
    before = kept(file)
    block(file.with_suffix(".new"))
    assert not await console.revoke(CRM)
    assert await status(gateway) == 401  # but it has forgotten the key
    assert kept(file) == before
    unblock(file.with_suffix(".new"))
    await until(lambda: not console.waiting_for(console.version))
    assert kept(file)["version"] == console.version


async def test_a_frozen_worker_is_waited_for_and_its_successor_has_its_name(
    start_gateway: StartGateway, console: Console, file: Path
) -> None:
    gateway = await start_gateway(**settings(console, file, GATEWAY_WORKERS="2", METRICS_PORT="0"))
    await until(lambda: len(console.readers) == 2 and not console.waiting_for(console.version))
    names = {name for name, _ in console.readers}
    frozen = workers_of(gateway)[0]
    os.kill(frozen, signal.SIGSTOP)
    assert not await console.revoke(CRM)
    assert len(console.waiting_for(console.version)) == 1
    os.kill(frozen, signal.SIGCONT)
    await until(lambda: not console.waiting_for(console.version))
    os.kill(frozen, signal.SIGKILL)
    # the dead one leaves by the console's rules

    await until(lambda: len(console.readers) == 3)
    assert {name for name, _ in console.readers} == names


async def test_it_says_goodbye_after_its_last_answer(
    start_gateway: StartGateway, console: Console, owner: Owner, file: Path
) -> None:
    gateway = await start_gateway(**settings(console, file))
    goes_on = owner.hold()
    answer = asyncio.create_task(gateway.call("GET", STATUS, **OWN))
    await until(lambda: any(each["path"] == STATUS for each in owner.received))
    gateway.process.send_signal(signal.SIGTERM)

    async def closed() -> bool:
        with suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession() as session,
                session.get(gateway.url + "/api/health"),
            ):
                return False
        return True

    await eventually(closed)
    assert (len(console.readers), console.left) == (1, [])
    goes_on.set()
    assert (await answer).status == 200
    await asyncio.to_thread(gateway.process.wait, 35)
    assert (console.readers, len(console.left)) == ({}, 1)
