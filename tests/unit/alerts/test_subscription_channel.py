"""A subscription's requests, by HTTP: what is signed, what an answer means, and where it may go."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.alerts.channels import Channel, opened
from services.alerts.channels.subscription import SubscriptionTarget
from services.alerts.channels.templates import Templates
from services.alerts.rules.delivery import Claimed, Kind, Reason
from tests.support.ports import HOST
from tests.support.receivers import Manners, Receivers, receivers

pytestmark = pytest.mark.promise("P15")

AT = datetime(2026, 11, 25, 10, 15, 30, tzinfo=UTC)
SECRETS = [
    "whsec_c2FuZGJveC1zYW5kYm94LXNhbmRib3gtMTIzNA==",
    "whsec_b2xkZXItb2xkZXItb2xkZXItb2xkZXItMTIzNDU2",
]
ID = UUID("6f6d4c52-6a0e-4b58-8f39-2d54a8c0f0aa")
JOB = Claimed(ID, "subscription.1", "lead.closed", {"data": {"by": "Łucja"}}, AT, AT, None)
LOOPBACK = (ip_network(f"{HOST}/32"),)


@pytest.fixture
async def outside() -> AsyncIterator[Receivers]:
    async with receivers() as subject:
        yield subject


@asynccontextmanager
async def channel(url: str, private: Any = LOOPBACK) -> AsyncIterator[Channel]:
    target = SubscriptionTarget.of(url, SECRETS)
    async with opened("subscription.1", target, Templates(Path()), private) as subject:
        yield subject


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (202, Kind.DELIVERED, Reason.OK),
        (302, Kind.FAILED, Reason.REDIRECT),
        (422, Kind.FAILED, Reason.REFUSED),
        (410, Kind.NEVER, Reason.GONE),
    ],
)
async def test_what_an_answer_means(
    outside: Receivers, status: int, kind: Kind, reason: Reason
) -> None:
    outside.manners["crm"] = Manners(status, {"Location": outside.of("inside")})
    async with channel(outside.of("crm")) as subject:
        outcome = await subject.send(JOB)
    assert (outcome.kind, outcome.reason, outcome.status) == (kind, reason, status)
    assert outside.asked["inside"] == 0


async def test_loopback_is_refused_unless_its_network_is_allowed(outside: Receivers) -> None:
    for url in (outside.of("crm"), outside.of("crm").replace(HOST, "localhost")):
        async with channel(url, ()) as subject:
            outcome = await subject.send(JOB)
        assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.ADDRESS_REFUSED)
    assert outside.asked["crm"] == 0


async def test_a_name_that_changes_its_address_is_connected_to_where_it_was_checked(
    outside: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: a second look-up would lead inside; there is none."""
    port = int(outside.url.rpartition(":")[2])
    looked = 0

    def rebinding(*_: Any, **__: Any) -> list[Any]:
        nonlocal looked
        looked += 1
        address = "192.0.2.1" if looked == 1 else HOST
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with channel(f"https://rebinding.example:{port}/crm", ()) as subject:
        first, second = [await subject.send(JOB) for _ in range(2)]
    assert {first.reason, second.reason} == {Reason.ADDRESS_REFUSED}
    assert looked == 2  # one for each attempt
    assert outside.asked["crm"] == 0


async def test_in_clear_nothing_leaves_a_private_network(
    outside: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def public(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", public)
    async with channel("http://public.example/crm") as subject:
        outcome = await subject.send(JOB)
    assert outcome.reason is Reason.ADDRESS_REFUSED
    assert outside.asked["crm"] == 0
