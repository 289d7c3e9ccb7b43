"""Forwarding: what reaches an owner, what comes back, and what is said when it is away."""

import json
from contextlib import suppress

from aiohttp import web

from tests.integration.gateway.conftest import (
    ADMIN,
    INTERNAL_KEY,
    SERVICE,
    Gateway,
    Owner,
    StartGateway,
)
from tests.integration.gateway.test_raw import EXPORT, begin, port_of, statuses
from tests.support.consumers import until
from tests.support.eventually import eventually

CHAT = "/api/chatbot/chat"


async def test_an_owner_gets_path_query_and_body_unchanged(gateway: Gateway, owner: Owner) -> None:
    path = "/api/unsubscribe/status/a%2Bb%40example.com?token=x%20y&lang=pl"
    await gateway.call("GET", path)
    await gateway.send("POST", "/api/opt-in", data=b'{ "email" : "\xc5\x82" }')
    asked, posted = owner.received[-2:]
    assert (asked["method"], asked["path"]) == ("GET", path)
    assert posted["body"] == '{ "email" : "ł" }'


async def test_an_upstream_gets_the_caller_s_role_and_no_forged_headers(
    gateway: Gateway, owner: Owner
) -> None:
    forged = {
        "X-Internal-Key": "forged",
        "X-Caller": "admin",
        "X-Client-Address": "203.0.113.1",
        "X-Forwarded-For": "203.0.113.1",
        "X-Operator": "somebody",
        "X-Over-Budget": "1",
        "Cookie": "session=1",
        "Connection": "keep-alive, X-Named",
        "X-Named": "1",
        "TE": "trailers",
        "Proxy-Authorization": "Basic x",
        "User-Agent": "Mozilla",
        "Accept-Language": "pl",
        "X-Request-ID": "req-12345678",
    }
    answer = await gateway.call("POST", CHAT, {"message": "x"}, **forged)
    headers = owner.received[-1]["headers"]
    assert headers["X-Internal-Key"] == INTERNAL_KEY
    assert headers["X-Caller"] == "public"
    assert headers["X-Client-Address"] == "127.0.0.1"
    assert headers["X-Client-Address-From"] == "peer"
    assert headers["X-Request-ID"] == answer.headers["X-Request-ID"] == "req-12345678"
    assert (headers["User-Agent"], headers["Accept-Language"]) == ("Mozilla", "pl")
    gone = {"X-Forwarded-For", "X-Operator", "Cookie", "X-Named", "TE", "Proxy-Authorization"}
    gone |= {"X-Over-Budget"}
    assert not gone & set(headers)


async def test_keys_are_not_forwarded_but_the_role_is(gateway: Gateway, owner: Owner) -> None:
    await gateway.call("GET", "/api/dlq/stats", **ADMIN, **{"X-Operator": "anna"})
    (headers,) = (each["headers"] for each in owner.of("/api/dlq/stats"))
    assert (headers["X-Caller"], headers["X-Operator"]) == ("admin", "anna")
    assert "X-ADMIN-API-KEY" not in headers
    for forged in ("staff:7 Ewa", " key:ABCDEFGHIJ"):  # reads as if the gateway had proved it
        said = {"X-Operator": forged, "X-Operator-Roles": "admin"}
        await gateway.call("GET", "/api/dlq/failed", **ADMIN, **said)
    seen = [one["headers"] for one in owner.of("/api/dlq/failed")]
    assert len(seen) == 2
    assert not [one for one in seen if {"X-Operator", "X-Operator-Roles"} & set(one)]
    await gateway.call("GET", "/api/followups?email=a@example.com", **SERVICE)
    assert owner.received[-1]["headers"]["X-Caller"] == "service"


async def test_an_answer_comes_back_without_hop_by_hop_headers(
    gateway: Gateway, owner: Owner
) -> None:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=418,
            text="körper",
            headers={
                "Connection": "X-Named",
                "X-Named": "1",
                "Keep-Alive": "timeout=5",
                "Proxy-Authenticate": "Basic",
                "X-Kept": "1",
                "X-Request-ID": "another",
            },
        )

    owner.handle = handle
    answer = await gateway.call("POST", CHAT, {})
    assert (answer.status, answer.body) == (418, "körper")
    assert answer.headers["X-Kept"] == "1"
    assert answer.headers["X-Request-ID"] != "another"
    assert not {"X-Named", "Keep-Alive", "Proxy-Authenticate", "Server"} & set(answer.headers)


async def test_an_answer_cut_in_the_middle_does_not_look_whole(
    start_gateway: StartGateway, owner: Owner
) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1_000_000
        await response.prepare(request)
        await response.write(b"x" * 100_000)
        assert request.transport is not None
        request.transport.abort()
        return response

    owner.handle = handle
    gateway = await start_gateway()
    reader, writer = await begin(port_of(gateway), EXPORT)
    got = b""
    with suppress(ConnectionResetError):
        while chunk := await reader.read(65536):
            got += chunk
    writer.close()
    assert statuses(got) == [200]
    assert len(got) < 500_000


async def test_without_the_right_key_it_is_401(gateway: Gateway, owner: Owner) -> None:
    before = len(owner.received)
    calls: list[tuple[str, str, dict[str, str]]] = [
        ("POST", "/api/alerts", {}),
        ("POST", "/api/alerts", {"X-API-KEY": ""}),
        ("POST", "/api/alerts", {"X-API-KEY": "service-keyy"}),
        ("POST", "/api/alerts", ADMIN),
        ("GET", "/api/followups?email=a@example.com", {"X-API-KEY": "wrong"}),
        ("POST", "/api/dlq/retry", SERVICE),
        ("GET", "/api/consent/audit/a@example.com", {"X-ADMIN-API-KEY": "ädmin"}),
        ("PUT", "/api/ratelimits", {}),
    ]
    for method, path, keys in calls:
        answer = await gateway.send(method, path, keys, data=b"not even json")
        assert (answer.status, answer.body["status"]) == (401, 401), (method, path, keys)
    assert owner.received[before:] == []


async def test_an_unset_key_locks_its_routes(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(SERVICE_API_KEY="", ADMIN_API_KEY="")
    assert (await gateway.call("POST", "/api/alerts", {}, **{"X-API-KEY": ""})).status == 401
    assert (await gateway.call("GET", "/api/dlq/stats", **{"X-ADMIN-API-KEY": ""})).status == 401
    assert (await gateway.call("GET", "/api/dlq/stats")).status == 401


async def test_a_wrong_key_is_refused_before_the_body_is_asked_for(gateway: Gateway) -> None:
    reader, writer = await begin(port_of(gateway))

    async def answers(key: str) -> bytes:
        writer.write(
            b"POST /api/alerts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\nExpect: 100-continue\r\nX-API-KEY: " + key.encode() + b"\r\n\r\n"
        )
        return await reader.readline()

    assert b" 100 " in await answers("service-key-of-tests")
    assert await reader.readline() == b"\r\n"
    writer.write(b"{}")
    assert b" 422 " in await reader.readline()
    writer.close()
    reader, writer = await begin(port_of(gateway))
    assert b" 401 " in await answers("wrong")
    writer.close()


async def test_a_body_that_contradicts_its_headers_is_400(gateway: Gateway, owner: Owner) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = await gateway.send("POST", CHAT, headers, data=b"no gzip")
    assert (answer.status, answer.body["status"]) == (400, 400)

    head = b"POST %s HTTP/1.1\r\nHost: x\r\nX-Request-ID: the-cut-one\r\n" % CHAT.encode()
    _, writer = await begin(port_of(gateway))
    writer.write(head + b"Content-Length: 9\r\n\r\n{")
    writer.close()

    async def answered() -> str:
        lines = gateway.log.read_text().splitlines()
        return next((x for x in lines if "the-cut-one" in x and "http.answered" in x), "")

    assert '"status": 400' in await eventually(answered)
    assert "http.failed" not in gateway.log.read_text()
    assert owner.of(CHAT) == []


async def test_a_request_that_cannot_be_parsed_leaves_nothing_of_the_client_in_the_log(
    gateway: Gateway,
) -> None:
    reader, writer = await begin(port_of(gateway))
    writer.write(b"GET /api/unsubscribe/status/anna@example.pl\xff HTTP/1.1\r\n\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
    await until(lambda: '"event": "http.malformed", "level": "info"' in gateway.log.read_text())
    log = gateway.log.read_text()
    assert "anna" not in log
    assert "127.0.0.1" not in log.partition("http.malformed")[2].partition("\n")[0]
    assert "Traceback" not in log


async def test_an_unknown_path_is_404_and_a_wrong_method_405(gateway: Gateway) -> None:
    assert (await gateway.call("GET", "/nowhere")).status == 404
    wrong = await gateway.call("GET", "/api/opt-in")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")
    for answer in (wrong, await gateway.call("GET", "/internal/alerts")):
        assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_an_unknown_alert_may_be_asked_for_again(gateway: Gateway, owner: Owner) -> None:
    owner.say(status=404)
    answer = await gateway.call(
        "GET", "/api/alerts/9b2e8a52-0f0d-5c3b-8a44-1f6d3a1f2b7c", **SERVICE
    )
    assert (answer.status, answer.headers["Retry-After"]) == (404, "1")


async def test_logs_carry_the_template_and_never_an_address(gateway: Gateway) -> None:
    await gateway.call("GET", "/api/unsubscribe/status/anna@example.com?token=secret")
    await gateway.stop()
    log = gateway.log.read_text()
    assert "/api/unsubscribe/status/{email}" in log
    assert "anna" not in log
    assert "secret" not in log
    assert all(json.loads(line)["service"] == "gateway" for line in log.splitlines())


async def test_head_asks_the_owner_and_carries_no_body(gateway: Gateway, owner: Owner) -> None:
    answer = await gateway.send("HEAD", "/unsubscribe?token=x")
    assert (answer.status, answer.body) == (200, "")
    assert owner.received[-1]["method"] == "GET"
    assert (await gateway.call("GET", "/api/health")).status == 200


async def test_every_answer_carries_security_headers(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(PUBLIC_BASE_URL="https://ostoja.example.com")
    for path in ("/api/health", "/nowhere", "/docs", "/unsubscribe"):
        headers = (await gateway.call("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


async def test_an_allowed_origin_may_call_and_read_even_errors(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(CORS_ORIGINS="https://www.example.com")
    ours = {"Origin": "https://www.example.com"}
    preflight = await gateway.send(
        "OPTIONS", CHAT, {**ours, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status == 204
    assert "Content-Type" in preflight.headers["Access-Control-Allow-Headers"]
    for answer in (preflight, await gateway.call("GET", "/nowhere", **ours)):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://www.example.com"
        assert "Origin" in answer.headers["Vary"]
    foreign = await gateway.call("GET", "/api/health", Origin="https://evil.example.com")
    assert "Access-Control-Allow-Origin" not in foreign.headers
