"""A channel connects only to the address that was checked."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.alerts.channels import Channel, opened
from services.alerts.channels.channel import Target
from services.alerts.channels.network import Networks
from services.alerts.rules.delivery import Kind, Outcome, Reason
from tests.support import targets
from tests.support.consumers import until

CHANNELS = ("slack", "monday", "sms", "webhook", "subscription", "apprise", "email")
HTTP = ("slack", "monday", "sms", "webhook", "subscription")
PRIVATE = ("127.0.0.1", "localhost", "0.0.0.0")  # noqa: S104
SPELLED = ("::ffff:127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001")
FIRST: Networks = (ipaddress.ip_network("127.0.0.2/32"),)
REFUSED = (Kind.FAILED, Reason.ADDRESS_REFUSED)


def target(channel: str, host: str, port: int, **options: Any) -> Target:
    if channel == "email":
        return targets.mail_target(port, host, **options)
    scheme = "json" if channel == "apprise" else "http"
    shown = f"[{host}]" if ":" in host else host
    return targets.http_target(channel, f"{scheme}://{shown}:{port}/hook", **options)


def said(outcome: Outcome) -> tuple[Kind, Reason]:
    return outcome.kind, outcome.reason


class Listener:
    """Listens on every address of this machine, records connections and closes them."""

    def __init__(self) -> None:
        self.at: list[str] = []
        self.port = 0

    async def handle(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at.append(writer.get_extra_info("sockname")[0])
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    noting = Listener()
    server = await asyncio.start_server(noting.handle, "0.0.0.0", 0)  # noqa: S104 - the test's
    noting.port = server.sockets[0].getsockname()[1]
    async with server:
        yield noting


LookUp = Callable[[str], list[str]]


class Names:
    """Stands in for the name server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self._look_up: LookUp | None = None
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def answer(self, look_up: LookUp) -> None:
        self._look_up = look_up

    def _getaddrinfo(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if not str(host).endswith(".example") or self._look_up is None:
            return self._real(host, port, *args, **options)
        self.asked.append(host)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in self._look_up(host)
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.mark.promise("P6", "P15")
@pytest.mark.parametrize("channel", CHANNELS)
async def test_an_unlisted_private_address_is_refused_in_every_spelling(
    listener: Listener, channel: str
) -> None:
    for host in PRIVATE:
        outcome = await targets.send(target(channel, host, listener.port), ())
        assert said(outcome) == REFUSED
        of = "SUBSCRIPTIONS" if channel == "subscription" else "ALERTS"
        assert f"{of}_PRIVATE_NETWORKS" in outcome.excerpt
    for host in SPELLED if channel != "apprise" else ():
        assert (await targets.send(target(channel, host, listener.port), ())).kind is Kind.FAILED
    assert listener.at == []


@pytest.mark.promise("P6", "P15")
@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_rebound_name_is_connected_to_the_checked_address(
    listener: Listener, names: Names, channel: str
) -> None:
    names.answer(lambda _: ["127.0.0.2" if len(names.asked) == 1 else "127.0.0.1"])
    moving = target(channel, "moving.example", listener.port)
    assert said(await targets.send(moving, FIRST)) != REFUSED
    assert names.asked == ["moving.example"]  # once: no second look-up to connect by
    assert listener.at == ["127.0.0.2"]
    assert said(await targets.send(moving, FIRST)) == REFUSED
    assert listener.at == ["127.0.0.2"]


@pytest.mark.promise("P6")
@pytest.mark.parametrize("channel", CHANNELS)
async def test_only_the_allowed_of_several_addresses_is_connected(
    listener: Listener, names: Names, channel: str
) -> None:
    several = target(channel, "several.example", listener.port)
    names.answer(lambda _: ["127.0.0.1", "::1", "169.254.169.254", "fd00:ec2::254"])
    assert said(await targets.send(several, FIRST)) == REFUSED
    assert listener.at == []
    names.answer(lambda _: ["127.0.0.1", "::1", "127.0.0.2"])
    await targets.send(several, FIRST)
    assert set(listener.at) == {"127.0.0.2"}


@pytest.mark.promise("P15")
async def test_in_clear_nothing_leaves_a_private_network(names: Names) -> None:
    names.answer(lambda _: ["8.8.8.8"])
    assert said(await targets.send(target("subscription", "public.example", 80), FIRST)) == REFUSED


@pytest.mark.promise("P6")
@pytest.mark.parametrize("channel", [*HTTP, "apprise"])
async def test_a_redirect_is_not_followed(listener: Listener, channel: str) -> None:
    location = f"Location: http://127.0.0.1:{listener.port}/"
    async with targets.listening(targets.answering(targets.answer(307, b"", location))) as port:
        outcome = await targets.send(target(channel, "127.0.0.1", port))
    reason = Reason.BAD_ANSWER if channel == "apprise" else Reason.REDIRECT
    assert said(outcome) == (Kind.FAILED, reason)
    assert listener.at == []


@pytest.mark.promise("P6")
@pytest.mark.parametrize("channel", HTTP)
async def test_a_proxy_in_the_environment_is_not_used(
    listener: Listener, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.setenv(spelled, f"http://127.0.0.1:{listener.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with targets.listening(targets.answering(targets.answer(500, b""))) as port:
        outcome = await targets.send(target(channel, "127.0.0.1", port))
    assert outcome.status == 500
    assert listener.at == []


@pytest.mark.promise("P6")
@pytest.mark.parametrize("stalled", ["email", "webhook", "slack"])
async def test_a_hanging_name_server_delays_only_its_target(names: Names, stalled: str) -> None:
    go_on = threading.Event()

    def look_up(host: str) -> list[str]:
        if host == "hanging.example":
            go_on.wait(20)
        return ["127.0.0.1"]

    names.answer(look_up)
    async with AsyncExitStack() as closing:
        port = await closing.enter_async_context(
            targets.listening(targets.answering(targets.answer(200, b"ok")))
        )

        async def open_channel(channel: str, host: str) -> Channel:
            chosen = target(channel, host, port, timeout=10.0, concurrency=8)
            return await closing.enter_async_context(
                opened("any", chosen, targets.TEMPLATES, targets.LOOPBACK)
            )

        healthy = await open_channel("slack", "healthy.example")
        hanging = [await open_channel(stalled, "hanging.example") for _ in range(8)]
        # More than the threads of the loop's pool, which they would otherwise share.
        waiting = [
            asyncio.create_task(one.send(targets.job())) for one in hanging for _ in range(8)
        ]
        await until(lambda: names.asked.count("hanging.example") >= len(hanging))
        try:
            assert (await healthy.send(targets.job())).kind is Kind.DELIVERED
        finally:
            go_on.set()
            for attempt in waiting:
                attempt.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
