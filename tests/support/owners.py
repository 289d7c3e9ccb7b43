"""Stands for the gateway towards the console: a company with some leads, and some troubles.

owners.yaml has the answers that are the same for any leads.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import yaml
from aiohttp import web

EWA = "Ewa Lis"
SPACE = UUID(int=36)
NAMES = (
    "Anna Nowak",
    None,
    "Jan Kowalski",
    "Maria Wiśniewska",
    None,
    "Piotr Zieliński",
    "Ola Zając",
)
TOWNS = ("Gdynia", "Warszawa", "Kraków", None, "Gdańsk", "Wrocław")
WISHES = (
    "remont łazienki",
    "nowa kuchnia z zabudową",
    "projekt salonu",
    "wykończenie mieszkania",
    None,
    "szafa do przedpokoju na wymiar, z lustrem i miejscem na buty całej rodziny",
)
STATES = ("new", "new", "new", "taken", "taken", "won", "lost")
STARTS = ("2027-04", "asap", None, "2027-06 summer")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def ago(**spans: float) -> str:
    return (datetime.now(UTC) - timedelta(**spans)).isoformat()


def id_of(what: str) -> str:
    return str(uuid5(SPACE, what))


def varied(one: dict[str, Any], *changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return objects like this one, each with its changes and, but the first, an id of its own."""
    ids = ({"id": id_of(f"{one.get('id')} {n}")} if n else {} for n in range(len(changes)))
    return [one | id_ | change for id_, change in zip(ids, changes, strict=True)]


def lead(n: int) -> dict[str, Any]:
    state = STATES[n % len(STATES)]
    name = NAMES[n % len(NAMES)]
    return {
        "id": str(uuid5(SPACE, str(n))),
        "topic": "lead",
        "state": state,
        "state_reason": None,
        "state_by": None if state == "new" else f"staff:{UUID(int=7)} Ewa Lis",
        "state_at": ago(minutes=40 * n),
        "score": 100 - n * 7 % 60,
        "language": "pl",
        "email": f"klient{n}@example.com" if n % 3 else None,
        "phone": f"+48601{88_600 + n:06}" if n % 4 else None if n % 3 else "+48601088600",
        "name": name,
        "city": TOWNS[n % len(TOWNS)],
        "wish": WISHES[n % len(WISHES)],
        "area": (6.0, None, 24.5)[n % 3],
        "budget": (40_000, 120_000, None)[n % 3],
        "currency": "PLN",
        "start": STARTS[n % 4],
        "may_mail": ("given", "waiting", "refused", None)[n % 4],
        "no_calls": n % 11 == 5,
        "wants_call": n % 5 == 0,
        "also": [],
        "previous": None,
        "next": None,
        "created_at": ago(minutes=12 + 47 * n),
        "updated_at": ago(minutes=9 + 40 * n),
        "conversation_id": str(uuid5(SPACE, f"c{n}")),
        "transcript_url": "https://x.example/",
        "area_from": None,
        "budget_from": 30_000 if n % 5 == 0 else None,
        "owner": None if state == "new" else ("Ewa Lis", "Jan Kos")[n % 2],
        "answered_at": None,
        "call_at": ago(hours=-3 - n % 5) if state == "taken" and n % 3 else None,
        "order_value": None,
        "revision": 0,
        "order_currency": None,
        "edited": [],
        "version": 1,
        "form": "kontakt" if n % 2 else None,
    }


def filled(value: Any) -> Any:
    """Return what owners.yaml means by its times and ids."""
    if isinstance(value, dict):
        return {name: filled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each) for each in value]
    if not isinstance(value, str):
        return value
    if value[:1] == "@":
        eight = datetime.now(ZoneInfo("Europe/Warsaw")).replace(hour=8, minute=0, second=0)
        days, _, hours = value[1:].rstrip("h").partition("+")
        return (eight + timedelta(days=int(days), hours=int(hours or 0))).isoformat()
    if found := re.fullmatch(r"([-+])(\d+)([mhd])", value):
        return ago(**{_UNITS[found[3]]: int(found[2]) * (-1 if found[1] == "+" else 1)})
    return id_of(value[1:]) if value.startswith("$") else value


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SUBSCRIPTION = filled(_DATA["subscription"])


class Owners:
    """:param leads: how many there are"""

    def __init__(self, leads: int = 3) -> None:
        self.leads = [lead(n) for n in range(leads)]
        self.asked: list[tuple[str, str]] = []

    def app(self) -> web.Application:
        made = web.Application()
        made.router.add_route("*", "/{path:.*}", self.answer)
        return made

    async def answer(self, request: web.Request) -> web.Response:
        path, query = request.path, request.query
        self.asked.append((request.method, path))
        parts = path.removeprefix("/api/").split("/")
        if parts[0] == "leads" and len(parts) == 1:
            return web.json_response(self._list(query))
        if parts[0] == "leads" and len(parts) == 2 and "/".join(parts) not in self.answers:
            found = next((one for one in self.leads if one["id"] == parts[1]), None)
            return web.json_response(found and self._details(found), status=200 if found else 404)
        known = self.answers.get("/".join(parts), self.answers.get(parts[0] + "/*"))
        return web.json_response(
            known or {"items": [], "total": 0, "next_cursor": None, "ok": True}
        )

    def _list(self, query: Any) -> dict[str, Any]:
        if query.get("person"):
            return {"items": [], "next_cursor": None}
        found = [one for one in self.leads if query.get("state") in {None, one["state"]}]
        if "owner" in query:
            found = [one for one in found if one["owner"] == query["owner"]]
        if query.get("order") == "oldest":
            found.reverse()
        if query.get("topic", "lead") != "lead":
            said = filled(_DATA["complaints"])
            found = [one | each for one, each in zip(found, said, strict=False)]
        limit = int(query.get("limit", 100))
        more = found[limit - 1]["id"] if len(found) > limit else None
        return {"items": found[:limit], "next_cursor": more, "total": len(found)}

    def _details(self, one: dict[str, Any]) -> dict[str, Any]:
        talk, stream = filled(_DATA["conversation"]), filled(_DATA["stream"])
        said = [each | {"kind": each["author"], "by": None} for each in talk]
        return one | {
            "conversation": talk,
            "stream": [*said, *stream],
            "alert_ids": [one["id"]],
            "score_reasons": ["zakres prac", "metraż", "budżet", "telefon"],
        }

    def stats(self) -> dict[str, Any]:
        new = [one for one in self.leads if one["state"] == "new"]
        taken = [one for one in self.leads if one["state"] == "taken"]
        names = ("leads", "answered", "due", "within_hour", "median_answer_seconds", "won", "lost")

        def counts(*numbers: int) -> dict[str, Any]:
            found = numbers if self.leads else (0, 0, 0, 0, None, 0, 0)
            return dict(zip(names, found, strict=True)) | {"won_values": {}, "lost_values": {}}

        days = [
            counts(2 + n * 7 % 6, 2, 3, n * 5 % 4, 600 + n * 911 % 3000, n * 2 % 3, n % 2)
            | {"day": ago(days=13 - n)[:10]}
            for n in range(14)
        ]
        week = counts(31, 28, 30, 24, 1260, 6, 3)
        return {
            "waiting": len(new),
            "waiting_since": new[-1]["created_at"] if new else None,
            "taken": len(taken),
            "mine": len([one for one in taken if one["owner"] == EWA]),
            "calls_today": 1 if taken else 0,
            "topics": {"complaint": 2, "privacy": 1} if self.leads else {},
            "this_week": week | ({"won_values": {"PLN": 412_000}} if self.leads else {}),
            "week_before": counts(26, 25, 26, 18, 2340, 7, 2),
            "days": days,
        }

    @property
    def answers(self) -> dict[str, Any]:
        found: dict[str, Any] = filled(_DATA["answers"]) | {"leads/stats": self.stats()}
        found[f"subscriptions/{SUBSCRIPTION['id']}/deliveries"] = found.pop("deliveries")
        limits = found["ratelimits"]
        now = {name: limit for name, limit in limits.items() if name != "mode"}
        sources = dict.fromkeys(now, "default") | {"hour": "override", "service": "env"}
        limits |= {"now": now, "sources": sources}
        return found if self.leads else found | filled(_DATA["nothing_yet"])
