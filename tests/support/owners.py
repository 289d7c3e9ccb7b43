"""Stands for the gateway towards the console: a company with some leads, and some troubles."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

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
BREAKER = {
    "state": "closed",
    "failures": 0,
    "open_since": None,
    "next_trial_at": None,
    "paused": False,
    "settings": ["SLACK_WEBHOOK_URL"],
}


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
        "call_at": ago(hours=-3) if state == "taken" and n % 2 else None,
        "order_value": None,
        "revision": 0,
        "order_currency": None,
        "edited": [],
        "version": 1,
        "form": "kontakt" if n % 2 else None,
    }


SUBSCRIPTION = {
    "id": id_of("subscription"),
    "url": "https://crm.example.com/ostoja",
    "events": ["lead.*", "consent.withdrawn"],
    "description": "CRM",
    "owner_email": "dev@example.com",
    "personal_data": True,
    "state": "active",
    "paused": None,
    "failing_since": None,
}
FAILING = SUBSCRIPTION | {
    "id": id_of("failing"),
    "description": "",
    "personal_data": False,
    "state": "failing",
    "failing_since": ago(hours=30),
}
SENT = [
    {
        "event": "lead.qualified",
        "created_at": ago(minutes=3),
        "status": "delivered",
        "attempts": [
            {"number": 1, "status": 500, "outcome": "failed", "answer": "try later"},
            {"number": 2, "status": 204, "outcome": "delivered", "answer": ""},
        ],
    }
]


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
            found = found[:2]
        limit = int(query.get("limit", 100))
        more = found[limit - 1]["id"] if len(found) > limit else None
        return {"items": found[:limit], "next_cursor": more, "total": len(found)}

    def _details(self, one: dict[str, Any]) -> dict[str, Any]:
        said = [
            ("bot", "Dzień dobry! W czym możemy pomóc?", 31),
            ("lead", "Chciałabym wyremontować łazienkę, około 6 m², mamy 40 000 zł.", 30),
            ("bot", "Kiedy chcieliby Państwo zacząć?", 29),
            ("lead", "Od kwietnia. Proszę o telefon po 16.", 25),
        ]
        talk = [{"author": who, "text": text, "at": ago(minutes=at)} for who, text, at in said]
        return one | {
            "conversation": talk,
            "stream": self._stream(talk),
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

    def _stream(self, talk: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ewa = f"staff:{UUID(int=7)} Ewa Lis"
        said: list[dict[str, Any]] = [one | {"kind": one["author"], "by": None} for one in talk]
        taken = {"kind": "state", "by": ewa, "text": None, "before": "new", "after": "taken"}
        note = "Ma wannę, chce prysznic. Klucze u sąsiadki."
        edit = {"before": {"budget": 40000}, "after": {"budget": 45000}}
        call = {"result": "no_answer", "call_at": ago(hours=-2)}
        return [
            *said,
            {"kind": "mail", "by": None, "text": "przypomnienie", "at": ago(minutes=20)},
            taken | {"reason": None, "at": ago(minutes=18)},
            {"kind": "call", "by": ewa, "text": None, "at": ago(minutes=15)} | call,
            {"kind": "note", "by": ewa, "text": note, "at": ago(minutes=12)},
            {"kind": "edit", "by": ewa, "text": None, "at": ago(minutes=10)} | edit,
            # An undo says no reason.
            taken | {"before": "won", "at": ago(minutes=8)},
        ]

    @property
    def answers(self) -> dict[str, Any]:
        page = {"next_cursor": None}
        ewa = f"staff:{UUID(int=7)} Ewa Lis"
        counts = {"pending": 0, "failed": 0, "in_doubt": 0, "delivered": 214}
        idle = counts | {"oldest_pending_seconds": None}
        targets = {
            "slack": counts | {"pending": 12, "oldest_pending_seconds": 1860, "failed": 3},
            "monday": idle | {"failed": 1}, "email": idle | {"in_doubt": 1}, "sms": idle,
        }  # fmt: skip
        held = BREAKER | {
            "state": "open", "open_since": ago(minutes=31), "next_trial_at": ago(minutes=-4),
            "paused": "unauthorized: 401 invalid_token",
        }  # fmt: skip
        alert = {
            "id": id_of("alert"), "event_type": "lead.qualified", "severity": "warning",
            "accepted_at": ago(minutes=50), "created_at": ago(minutes=50), "target": "slack",
            "attempts": 4, "reason": "timeout", "status": "failed",
            "payload": {"text": "Nowy lead"},
        }  # fmt: skip
        alerts = varied(
            alert,
            {},
            {"event_type": "lead.taken", "created_at": ago(hours=2)},
            {"event_type": "backup.failed", "reason": "unauthorized", "created_at": ago(hours=3)},
            {
                "target": "monday",
                "attempts": 6,
                "reason": "server_error",
                "created_at": ago(days=1),
            },
        )
        tries = [
            {
                "at": ago(minutes=50 - 8 * n), "reason": "timeout", "outcome": "failed",
                "status": 504, "seconds": 10.0, "excerpt": "upstream request timeout",
            }
            for n in range(4)
        ]  # fmt: skip
        delivery = {
            "target": "slack", "status": "failed", "reason": "exhausted",
            "error_message": "504 upstream request timeout", "next_attempt_at": None,
            "operator": None, "history": tries,
        }  # fmt: skip
        went = {
            "reason": "ok",
            "outcome": "delivered",
            "status": 250,
            "seconds": 0.4,
            "excerpt": "",
        }
        done = delivery | {
            "target": "email", "status": "delivered", "reason": "ok", "error_message": None,
            "history": [tries[0] | went],
        }  # fmt: skip
        asked = {"name": "Ewa Lis", "target": "sms", "state": "delivered"}
        case = {
            "id": id_of("case"), "event_type": "backup.failed", "severity": "critical",
            "opened_at": ago(minutes=26), "owner_name": None, "answered_at": None, "failures": 0,
            "state": "open", "outcome": None, "next_at": ago(minutes=-9), "step": 2,
            "steps_in_all": 3,
            "steps": [
                asked | {"handed_out_at": ago(minutes=24)},
                asked | {"name": "Jan Kos", "handed_out_at": ago(minutes=9), "state": None},
            ],
        }  # fmt: skip
        cases = varied(
            case,
            {},
            {"event_type": "disk.full", "severity": "warning", "opened_at": ago(minutes=11)},
            {"event_type": "import.late", "severity": "info", "opened_at": ago(minutes=4)},
        )
        shifts = [
            {"person": who, "begins": ago(hours=-24 * n), "ends": ago(hours=-24 * n - 24)}
            for n, who in enumerate(("ewa", "jan"))
        ]
        week = [
            {
                "person": ("ewa", "jan")[n % 2], "name": ("Ewa Lis", "Jan Kos")[n % 2],
                "rule": "override" if n == 1 else "shift",
                "begins": ago(hours=-n * 24 - (5 if n else 0)), "ends": ago(hours=-n * 24 - 29),
            }
            for n in range(7)
        ]  # fmt: skip
        schedule = {
            "name": "Ewa Lis", "person": "ewa", "until": ago(hours=-9), "rule": "shift",
            "fault": None, "gap_seconds": 0, "shifts": shifts, "able": ["ewa", "jan", "maria"],
            "week": week,
        }  # fmt: skip
        stands_in = {
            "id": 1, "schedule": "sales", "person": "maria", "begins": ago(hours=-4),
            "ends": ago(hours=-28), "by": ewa, "why": "urlop",
        }  # fmt: skip
        limits = dict.fromkeys(
            (
                "chat", "minute", "hour", "chat_budget", "write_budget", "withdrawal_budget",
                "service", "slack", "health", "console", "login",
            ),
            "30 per minute",
        )  # fmt: skip
        granted = {"state": "granted", "since": ago(days=9), "wording": "chat-2026-11"}
        evidence = {"source": "chat", "wording": "Zgadzam się na informacje handlowe."}
        trail = page | {
            "subject": "s", "restricted_since": None, "erasure": None,
            "entries": [{"action": "opt-in", "timestamp": ago(days=9), "evidence": evidence}],
        }  # fmt: skip
        step = {
            "id": id_of("step"), "conversation_id": id_of("c1"), "status": "scheduled",
            "email": "klient1@example.com", "sequence": "default", "step": 1,
            "due_at": ago(hours=-20), "handed_over_at": None,
        }  # fmt: skip
        steps = [
            {"email": f"klient{n}@example.com", "step": 1 + n % 2, "due_at": ago(hours=-5 * n)}
            for n in (1, 4, 7, 8)
        ]
        mail = {"subject": "Wracamy do naszej rozmowy", "text": "Dzień dobry"}
        sequence = {
            "sequence": "default", "mails": {"pl": mail, "en": mail},
            "counts": {"scheduled": 9, "sent": 84, "reply": 12, "unsubscribe": 3},
        }  # fmt: skip
        suspect = {
            "id": id_of("suspect"), "accepted_at": ago(hours=2), "form": "kontakt",
            "suspicion": "fast",
            "fields": {
                "name": "SEO Expert", "email": "seo@example.com",
                "message": "Your site can be first on Google.",
            },
        }  # fmt: skip
        human = {"name": "Zofia Mazur", "phone": "+48 601 088 777", "message": "Kuchnia, 12 m²."}
        suspects = varied(
            suspect, {}, {"suspicion": "busy", "fields": human, "accepted_at": ago(hours=5)}
        )
        silence = {
            "id": 1, "matchers": ["event_type=backup.failed"], "critical": False, "weekly": None,
            "active_until": ago(hours=-3), "ends": ago(hours=-3), "by": ewa,
            "why": "przegląd serwera",
        }  # fmt: skip
        nights = {
            "days": ["sat", "sun"],
            "begins": "22:00",
            "ends": "06:00",
            "zone": "Europe/Warsaw",
        }
        weekly = silence | {
            "id": 2, "matchers": ["target=sms", "severity!=critical"], "weekly": nights,
            "active_until": None, "ends": ago(days=-300), "why": "weekend bez SMS-ów",
        }  # fmt: skip
        beat = {
            "id": id_of("beat"), "name": "Kopia zapasowa", "every": "24h", "cron": None,
            "event_type": "heartbeat.missed", "timezone": None, "grace": "30m",
            "severity": "critical", "alert_id": None, "last_at": ago(hours=7),
            "due_at": ago(hours=-17), "state": "up", "url": "https://x.example/api/ping/8f3a…",
        }  # fmt: skip
        beats = varied(
            beat,
            {},
            {"name": "Import cennika", "every": None, "cron": "30 3 * * *", "severity": "warning"}
            | {"state": "late", "timezone": "Europe/Warsaw", "due_at": ago(minutes=8)},
            {"name": "Faktury do księgowości", "every": "1h", "severity": "info", "state": "new"}
            | {"last_at": None, "due_at": None},
        )
        awaiting = {
            "subject": "s", "email": "anna@example.com", "requested_at": ago(days=2),
            "due_at": ago(days=-28),
        }  # fmt: skip
        subscription = f"subscriptions/{SUBSCRIPTION['id']}/deliveries"
        return {
            "dlq/stats": counts | {"failed": 4, "in_doubt": 1, "targets": targets},
            "breakers": {"slack": held, "monday": BREAKER, "email": BREAKER, "sms": BREAKER},
            "ledger/check": {"ok": True, "escalation_unsent_seconds": 0},
            "alerts": page | {"items": alerts, "total": len(alerts)},
            "alerts/*": alert | {"deliveries": [delivery, done]},
            "dlq/*": page | {"items": [alert]},
            "cases": page | {"items": cases, "next": None},
            "cases/*": case,
            "subscriptions": page | {"items": [SUBSCRIPTION, FAILING]},
            subscription: page | {"items": SENT},
            "followups/sequences": page | {"items": varied(sequence, {"step": 1}, {"step": 2})},
            "silences": page | {"items": [silence, weekly]},
            "heartbeats": page | {"items": beats if self.leads else []},
            "oncall": {
                "schedules": {
                    "sales": schedule,
                    "ops": schedule | {"name": "Jan Kos", "gap_seconds": 3600},
                },
                "people": {"maria": {"name": "Maria Sowa", "quiet": None}},
                "you": None,
                "overrides": [stands_in],
            },
            "oncall/quiet": {
                "name": EWA,
                "quiet": {
                    "days": ["sat", "sun"],
                    "begins": "22:00",
                    "ends": "07:00",
                    "zone": "Europe/Warsaw",
                    "critical": True,
                },
            },
            "ratelimits": {
                "mode": "enforce", "now": limits, "sources": dict.fromkeys(limits, "default"),
                **limits,
            },
            "followups": page | {"items": varied(step, *steps)},
            "leads/stats": self.stats(),
            "leads/suspected": page | {"items": suspects if self.leads else []},
            "consent/erasures": {"in_progress": 0, "awaiting": 1},
            "consent/erasures/awaiting": page | {"items": [awaiting]},
            "consent/audit": trail,
            "consent/*": trail,
            "unsubscribe/*": {
                "purposes": {"marketing": {"email": granted}}, "restricted_since": None,
                "unsubscribed": False,
            },
            "health/deep": {"queues": {"alerts.slack": 12, "alerts.monday": 0, "alerts.intake": 0}},
        }  # fmt: skip
