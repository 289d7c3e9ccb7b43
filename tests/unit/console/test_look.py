"""Each page with no lead, with a few, and with three hundred, in both languages."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock
from uuid import UUID, uuid4

import aiohttp
import pytest
from aiohttp import web
from multidict import MultiDict
from pytest_aiohttp.plugin import AiohttpServer

from libs.common.database.statement import Rows
from services.alerts.config.matchers import matcher
from services.console.gateway import Gateway
from services.console.pages import admin, alerts, lists, login, page, routes, start
from services.console.pages.door import Door
from services.console.rules import Role
from services.console.samples import DAYS, begins, charts
from services.console.store.sessions import Visitor
from services.console.texts import TEXTS, ZONE
from tests.support.owners import EWA, SUBSCRIPTION, Owners, id_of, lead, varied
from tests.unit.console.test_person_pages import KEYS

ONE = str(UUID(int=1))
SILENCE = (
    "silences?field=event_type&op=%3D&value=backup.failed&severity=critical&target=email"
    "&field=target&op=!%3D&value=&severity=critical&target=slack"
    "&matchers=payload.host%3D~web&critical=on&hours=weekly&day=sat"
)
"""Its form, filled in, with what fits."""
PAGES = (
    "", "leads", "leads?state=new&order=oldest", "leads?state=taken&owner=Ewa%20Lis",
    "leads?state=won", "leads?state=not_a_lead", "leads?state=new&topic=complaint",
    "leads/suspected", "followups", "alerts", "alerts?state=in_doubt", f"alerts/{ONE}", "targets",
    "targets?days=14", "cases", f"cases/{ONE}", "oncall", "silences", SILENCE, "person", "staff",
    "keys", "limits", "actions", "me", "login", "heartbeats", "undeliverable", "subscriptions",
    f"subscriptions?of={SUBSCRIPTION['id']}",
)  # fmt: skip
LARGEST = 60_000
"""Bytes of a page with 50 leads."""
Opened = Callable[..., Any]
NOON = datetime(2026, 12, 1, 11, 0, tzinfo=UTC)

CONSENTS = "/api/unsubscribe/status"
STAFF = [
    SimpleNamespace(
        id=UUID(int=7 + n), name=name, email=f"{name[:3].lower()}@example.com", roles=roles,
        disabled_at=None, joined=n < 2, factor=n == 0,
    )
    for n, (name, roles) in enumerate(
        ((EWA, ["sales", "admin"]), ("Jan Kos", ["sales", "ops"]), ("Maria Sowa", ["privacy"]))
    )
]  # fmt: skip


@pytest.fixture
def nothing_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for the console's own tables."""
    for where in (admin, alerts, lists, login, start):
        monkeypatch.setattr(where, "run", AsyncMock(return_value=Rows([], 0)))
    key = {
        "id": "k3f8a1", "name": "CRM", "purpose": "czyta leady", "owner": "Jan Kos",
        "scopes": ["leads:read", "leads:write"], "created_at": NOON - timedelta(days=40),
        "expires_at": datetime.now(UTC) + timedelta(days=325), "revoked_at": None,
        "last_used_at": NOON, "calls": 1840,
    }  # fmt: skip
    keys = varied(
        key,
        {},
        {"name": "Kopia zapasowa", "purpose": "zgłasza, że się udała", "owner": "Ewa Lis"}
        | {"id": "k9d2c4", "scopes": ["heartbeats:write"], "last_used_at": None, "calls": 0},
        {"name": "Strona", "purpose": "zgłasza alerty", "id": "k1b7e0"}
        | {"scopes": ["alerts:write"], "expires_at": NOON - timedelta(days=3)},
    )

    stored = [SimpleNamespace(**one, _asdict=one.copy) for one in keys]

    async def of_admin(_: Any, name: str, **__: Any) -> Any:
        return Rows(stored if name == "all_keys" else [], 0)

    monkeypatch.setattr(admin, "run", of_admin)
    browsers = zip(("Firefox, Windows", "Chrome, Android"), (b"", b"1"), strict=True)
    sessions = [
        SimpleNamespace(browser=name, token_sha256=token, created_at=NOON, seen_at=NOON)
        for name, token in browsers
    ]

    async def sampled(*_: Any, unit: str, **__: Any) -> list[Any]:
        times = begins(unit, 24 if unit == "hour" else DAYS, datetime.now(UTC), ZONE)
        return [
            SimpleNamespace(
                target=of, begin=at, pending=n % 3, delivered=most + n * 7 % 11, failed=0
            )
            for most, of in enumerate(("sms", "slack", "monday", "email"))
            for n, at in enumerate(times)
        ]

    monkeypatch.setattr(lists, "run", sampled)
    monkeypatch.setattr(login, "run", AsyncMock(return_value=Rows(sessions, 0)))
    act = {
        "id": ONE, "at": NOON, "action": "lead.state", "object_kind": "lead",
        "object_ref": id_of("act"), "reason": None, "actor_kind": "staff", "actor_id": ONE,
        "actor_name": "Ewa Lis", "client_address": None, "outcome": "won", "count": None,
    }  # fmt: skip
    key = {"actor_kind": "key", "actor_name": None, "actor_id": "crm", "client_address": "10.0.0.7"}
    acts = varied(
        act,
        {},
        {"action": "lead.call", "outcome": "no_answer", "at": NOON - timedelta(minutes=20)},
        {"action": "staff.roles", "object_kind": "staff", "object_ref": str(UUID(int=8))}
        | {"outcome": "done", "at": NOON - timedelta(hours=2)},
        {"action": "case.answer", "object_kind": "case", "outcome": "taken"}
        | {"actor_name": "Jan Kos", "at": NOON - timedelta(hours=21)},
        {"action": "lead.look", "outcome": "done", "count": 12, "at": NOON - timedelta(hours=22)}
        | key,
    )
    found = {"items": acts, "next_cursor": None}
    monkeypatch.setattr(admin, "acts_of", AsyncMock(return_value=found))


class Engine:
    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        yield None

    begin = connect


class Opens(Door):
    """Lets in whoever the headers name."""

    async def visitor(self, request: web.Request, *, active: bool = True) -> Visitor:  # noqa: ARG002
        roles = tuple(request.headers.get("X-Roles", ",".join(Role)).split(","))
        language = request.headers.get("X-Language", "pl")
        now = datetime.now(UTC)
        return Visitor(uuid4(), "e@example.com", "Ewa Lis", roles, language, b"", now, factor=True)


@pytest.fixture
async def served(
    aiohttp_server: AiohttpServer, nothing_stored: None
) -> AsyncIterator[tuple[Owners, str]]:
    """Give the owners behind the pages, and the address of the pages."""
    owners = Owners(0)
    server = await aiohttp_server(owners.app())
    settings = MagicMock(origin="https://c.example")
    settings.ways.issuer = ""
    async with Gateway.open(str(server.make_url("/")), KEYS) as gateway:
        app, site = web.Application(), MagicMock(gateway=gateway, door=Opens(MagicMock(), settings))
        site.engine, site.looks, site.set_up = Engine(), AsyncMock(), {"company": False}
        site.people, site.queues_url = AsyncMock(), ""
        site.people.listed.return_value = STAFF
        routes.add_to(app, site)
        pages = await aiohttp_server(app)
        yield owners, str(pages.make_url(""))


@pytest.fixture
async def opened(served: tuple[Owners, str]) -> AsyncIterator[Opened]:
    owners, url = served
    async with aiohttp.ClientSession() as session:

        async def get(path: str, leads: int = 3, **headers: str) -> str:
            owners.leads = [lead(n) for n in range(leads)]
            named = {f"X-{name.title()}": value for name, value in headers.items()}
            async with session.get(f"{url}/console/{path}", headers=named) as answer:
                assert answer.status == 200, (path, leads, headers)
                return await answer.text()

        yield get


@pytest.mark.parametrize("leads", [0, 3, 300])
async def test_each_page_is_small_and_has_no_style_or_script_of_its_own(
    opened: Opened, leads: int
) -> None:
    paths = [*PAGES, *(f"leads/{lead(n)['id']}" for n in range(min(leads, 5)))]
    for path in paths:
        for language in TEXTS:
            html = await opened(path, leads, language=language)
            assert len(html.encode()) < LARGEST, path
            assert re.findall(r"<[a-z][^>]*\s(?:style|on\w+)=", html) == [], path
            assert re.findall(r"<script(?! defer src=)|<style|javascript:", html) == [], path
            assert html.count("<h1") == 1, path


async def test_start_shows_the_first_admin_who_waits_longest_and_takes_them_there(
    opened: Opened,
) -> None:
    html = await opened("", 300)
    waiting = [each for each in (lead(n) for n in range(300)) if each["state"] == "new"]
    oldest = max(waiting, key=lambda each: -datetime.fromisoformat(each["created_at"]).timestamp())
    assert TEXTS["pl"]["inbox_leads"].format(n=len(waiting)) in html
    first = html.index("/console/leads/" + oldest["id"])
    assert first == html.index(
        "/console/leads/" + oldest["id"], html.index('<ul class="rows cards')
    )
    assert html.count('name="answer" value="taken"') == start.CARDS


async def test_a_lead_is_called_by_name_or_number_and_never_without(opened: Opened) -> None:
    html = await opened("leads?state=new&order=oldest", 300)
    assert TEXTS["pl"]["no_name"] not in html
    assert "+48\xa0601\xa0088\xa0" in html
    assert "30\xa0000–40\xa0000&nbsp;zł" in html


async def test_a_page_shows_nothing_that_the_person_may_not_do(opened: Opened) -> None:
    seller = await opened("", roles="sales")
    assert "/console/staff" not in seller
    assert TEXTS["pl"]["set_up"] not in seller
    viewer = await opened("oncall", roles="viewer")
    assert '<form method="post" action="/console/oncall' not in viewer
    viewer = await opened("targets", roles="viewer")
    assert "/reset" not in viewer


async def test_a_bar_has_at_most_four_items_whatever_the_roles(opened: Opened) -> None:
    for roles in ("sales", "ops", "viewer", "privacy", "admin", ",".join(Role)):
        html = await opened("", roles=roles)
        bar = html.partition('<ul class="bar">')[2].partition("</ul>")[0]
        assert 1 < bar.count("<li>") <= page.MOST_IN_BAR, roles


async def test_start_says_what_is_urgent_before_what_is_not(opened: Opened) -> None:
    rows = (await opened("", 300)).partition("attention")[2].partition("</ul>")[0]
    tones = re.findall(r'class="state (bad|warn)"', rows)
    assert tones == sorted(tones)
    assert set(tones) == {"bad", "warn"}


@pytest.mark.parametrize(
    ("language", "said", "long"),
    [("pl", "na minutę", "na 15 min"), ("en", "per minute", "per 15 minutes")],
)
async def test_a_limit_is_in_the_words_of_the_page(
    opened: Opened, language: str, said: str, long: str
) -> None:
    html = await opened("limits", language=language)
    assert html.count(f'<p class="n"><b>30</b> <span>{said}</span></p>') == 9
    assert f'<p class="n"><b>300</b> <span>{long}</span></p>' in html
    assert TEXTS[language]["source_override"] in html


async def test_a_gap_is_named_and_drawn(opened: Opened) -> None:
    html = await opened("oncall")
    said, _, week = html.partition(TEXTS["pl"]["gap"])[2].partition('<ol class="week"')
    assert "08:00–14:00" in said
    assert "Maria Sowa" in said
    drawn = week.partition("</ol>")[0]
    assert drawn.count(TEXTS["pl"]["nobody_on_call"]) == drawn.count('class="otherwise') == 1


async def test_a_case_says_what_failed(opened: Opened) -> None:
    assert "<dt>host</dt><dd>db-2</dd>" in await opened(f"cases/{ONE}")


async def test_a_complaint_is_listed_in_its_own_words(opened: Opened) -> None:
    assert "<q>Fuga w kabinie" in await opened("leads?state=new&topic=complaint")


async def test_a_silence_is_checked_and_its_form_keeps_what_was_said(opened: Opened) -> None:
    html = await opened(SILENCE)
    assert TEXTS["pl"]["silence_fits"].format(n=2, all=9) in html
    first, second, *rest = html.split('<div class="condition">')[1:]
    assert re.findall(r'value="([^"]*)" (?:selected|placeholder)', first) == [
        "event_type",
        "backup.failed",
    ]
    assert re.findall(r'value="([^"]*)" selected', second) == ["target", "!=", "slack"]
    assert (len(rest), html.count('<details class="plus" open>')) == (3, 1)
    assert 'value="weekly" checked' in html
    assert 'value="sat" checked' in html
    assert "payload.host=~web</textarea>" in html


@pytest.mark.parametrize("text", ["~web", '"web"', '"', "web"])
def test_a_value_of_a_condition_is_taken_as_it_is_written(text: str) -> None:
    form = MultiDict({"field": "source", "op": "=", "value": f" {text} "})
    (said,) = lists.covered(form)["matchers"]
    assert (matcher(said).op, matcher(said).value) == ("=", text)


async def test_quiet_hours_of_each_person_open_with_what_is_stored(opened: Opened) -> None:
    html = await opened("oncall")
    for person, at, days in (("ewa", "21:30", 2), ("jan", "22:00", 7), ("maria", "21:30", 1)):
        form = html.partition(f'name="person" value="{person}"')[2].partition("</form>")[0]
        assert f'id="begins-{person}" name="begins" type="time" value="{at}"' in form, person
        assert len(re.findall(r'name="day" value="\w+" checked', form)) == days, person


async def test_what_is_late_or_fails_comes_first(opened: Opened) -> None:
    beats = await opened("heartbeats")
    assert beats.index("Import cennika") < beats.index("Kopia zapasowa")
    out = await opened("subscriptions")
    assert out.index(TEXTS["pl"]["sub_failing"]) < out.index(TEXTS["pl"]["sub_active"])


async def test_a_request_for_erasure_is_urgent_in_its_last_week(opened: Opened) -> None:
    html = await opened("person")
    assert re.findall(r'class="state (\w+)"', html) == ["warn"]


async def test_an_alert_has_one_line_of_time(opened: Opened) -> None:
    html = (await opened(f"alerts/{ONE}")).partition('<ol class="timeline">')[2]
    named = re.findall(r"<strong>(\w+)</strong>", html.partition("</ol>")[0])
    assert named == [TEXTS["pl"]["accepted"], "slack", "email", "slack", "slack", "slack"]


async def test_addresses_without_mail_are_below_the_follow_ups(opened: Opened) -> None:
    html = await opened("undeliverable")
    assert '<a href="/console/followups" aria-current="true">' in html


async def test_an_act_on_a_lead_can_be_undone(opened: Opened) -> None:
    mine = next(one for one in map(lead, range(300)) if one["owner"] == EWA)
    html = await opened(f"leads/{mine['id']}?did=taken", 300)
    assert '<button class="quiet" name="answer" value="release">' in html


async def test_a_state_that_there_is_not_is_no_page(served: tuple[Owners, str]) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("leads?state=bogus", "followups?state=bogus", "cases?state="):
            async with session.get(f"{served[1]}/console/{path}") as answer:
                assert answer.status == 404, path


@pytest.mark.parametrize("budget", ["abc", "nan", "1e9", "9" * 5_000, "-1"])
async def test_a_number_that_is_none_is_refused(served: tuple[Owners, str], budget: str) -> None:
    served[0].leads = [lead(0)]
    form = {"budget": budget, "version": "1"}
    path = f"{served[1]}/console/leads/{served[0].leads[0]['id']}/facts"
    async with aiohttp.ClientSession() as session, session.post(path, data=form) as answer:
        assert (answer.status, TEXTS["pl"]["not_accepted"] in await answer.text()) == (422, True)


async def test_several_leads_are_given_to_somebody_at_once(served: tuple[Owners, str]) -> None:
    owners, url = served
    owners.leads = [lead(n) for n in range(3)]
    form = [
        ("answer", "owner"),
        ("owner", "Jan Kos"),
        *(("lead", one["id"]) for one in owners.leads),
    ]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/console/leads?state=new", data=form) as answer,
    ):
        text = await answer.text()
    assert (answer.status, TEXTS["pl"]["bulk_progress"].format(done=3, expected=3) in text) == (
        200,
        True,
    )
    given = [path for method, path in owners.asked if method == "POST" and path != CONSENTS]
    assert given == [f"/api/leads/{one['id']}/owner" for one in owners.leads]


# The hours and days of charts, and what a bar says.


def test_hours_follow_each_other_over_a_change_of_clocks() -> None:
    hours = begins("hour", 24, datetime(2026, 10, 25, 12, 34, tzinfo=UTC), ZONE)
    assert hours[-1] == datetime(2026, 10, 25, 12, tzinfo=UTC)
    steps = {(late - early).total_seconds() for early, late in pairwise(hours)}
    assert (len(hours), steps) == (24, {3600})


def test_days_begin_at_midnight_where_people_are() -> None:
    days = begins("day", 14, datetime(2026, 10, 25, 23, 30, tzinfo=UTC), ZONE)
    assert days[-1] == datetime(2026, 10, 25, 23, tzinfo=UTC)
    assert days[-2] == datetime(2026, 10, 24, 22, tzinfo=UTC)


def test_what_waited_is_no_sum_and_no_sample_is_no_zero() -> None:
    times = begins("hour", 4, datetime(2026, 11, 27, 12, tzinfo=UTC), ZONE)
    rows = [
        SimpleNamespace(target="slack", begin=at, pending=pending, delivered=5, failed=0)
        for at, pending in ((times[1], 3), (times[3], 7))
    ]
    pending, delivered, failed = charts(rows, times)["slack"]
    assert pending.values == [None, 3, None, 7]
    assert (pending.number, pending.most) == (7, 7)
    assert (delivered.number, delivered.most) == (10, 5)
    assert (failed.values, failed.number) == ([None, 0, None, 0], 0)
