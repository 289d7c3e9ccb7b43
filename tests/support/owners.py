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
        many = bool(self.leads)
        counts = {
            "leads": 0,
            "answered": 0,
            "due": 0,
            "within_hour": 0,
            "median_answer_seconds": None,
            "won": 0,
        }
        week = counts | (
            (
                many
                and {
                    "leads": 31,
                    "answered": 28,
                    "due": 30,
                    "within_hour": 24,
                    "median_answer_seconds": 1260,
                    "won": 6,
                }
            )
            or {}
        )
        before = counts | (
            (
                many
                and {
                    "leads": 26,
                    "answered": 25,
                    "due": 26,
                    "within_hour": 18,
                    "median_answer_seconds": 2340,
                    "won": 7,
                }
            )
            or {}
        )
        days = [
            counts
            | {"day": ago(days=13 - n)[:10]}
            | (
                (
                    many
                    and {
                        "leads": 2 + n * 7 % 6,
                        "answered": 2,
                        "due": 3,
                        "within_hour": n * 5 % 4,
                        "median_answer_seconds": 600 + n * 911 % 3000,
                        "won": n * 2 % 3,
                    }
                )
                or {}
            )
            for n in range(14)
        ]
        return {
            "waiting": len(new),
            "waiting_since": new[-1]["created_at"] if new else None,
            "taken": len(taken),
            "mine": len([one for one in taken if one["owner"] == "Ewa Lis"]),
            "calls_today": 1 if taken else 0,
            "topics": {"complaint": 2, "privacy": 1} if many else {},
            "this_week": week,
            "week_before": before,
            "days": days,
        }

    def _stream(self, talk: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ewa = f"staff:{UUID(int=7)} Ewa Lis"
        said: list[dict[str, Any]] = [one | {"kind": one["author"], "by": None} for one in talk]
        done: list[dict[str, Any]] = [
            {"kind": "mail", "by": None, "text": "przypomnienie", "at": ago(minutes=20)},
            {
                "kind": "state",
                "by": ewa,
                "text": None,
                "before": "new",
                "after": "taken",
                "reason": None,
                "at": ago(minutes=18),
            },
            {
                "kind": "call",
                "by": ewa,
                "text": None,
                "result": "no_answer",
                "call_at": ago(hours=-2),
                "at": ago(minutes=15),
            },
            {
                "kind": "note",
                "by": ewa,
                "text": "Ma wannę, chce prysznic. Klucze u sąsiadki.",
                "at": ago(minutes=12),
            },
            {
                "kind": "edit",
                "by": ewa,
                "text": None,
                "before": {"budget": 40000},
                "after": {"budget": 45000},
                "at": ago(minutes=10),
            },
        ]
        # An undo says no reason.
        done.append({**done[1], "before": "won", "at": ago(minutes=8)})
        del done[-1]["reason"]
        return said + done

    @property
    def answers(self) -> dict[str, Any]:
        counts = {"pending": 0, "failed": 0, "in_doubt": 0, "delivered": 214}
        waits = counts | {"pending": 12, "oldest_pending_seconds": 1860, "failed": 2}
        targets = {
            "slack": waits,
            "monday": counts | {"oldest_pending_seconds": None},
            "email": counts | {"oldest_pending_seconds": None, "in_doubt": 1},
            "sms": counts | {"oldest_pending_seconds": None},
        }
        held = BREAKER | {
            "state": "open",
            "open_since": ago(minutes=31),
            "next_trial_at": ago(minutes=-4),
            "paused": "unauthorized: 401 invalid_token",
        }
        alert = {
            "id": str(uuid5(SPACE, "alert")),
            "event_type": "lead.qualified",
            "severity": "warning",
            "accepted_at": ago(minutes=50),
            "created_at": ago(minutes=50),
            "target": "slack",
            "attempts": 4,
            "reason": "timeout",
            "status": "failed",
            "payload": {"text": "Nowy lead"},
        }
        tries = [
            {
                "at": ago(minutes=50 - 8 * n),
                "reason": "timeout",
                "outcome": "failed",
                "status": 500,
                "seconds": 10.0,
                "excerpt": "upstream request timeout",
            }
            for n in range(4)
        ]
        delivery = {
            "target": "slack",
            "status": "failed",
            "reason": "exhausted",
            "error_message": "500",
            "next_attempt_at": None,
            "operator": None,
            "history": tries,
        }
        done = delivery | {
            "target": "email",
            "status": "delivered",
            "reason": "ok",
            "history": tries[:1],
        }
        case = {
            "id": str(uuid5(SPACE, "case")),
            "event_type": "backup.failed",
            "severity": "critical",
            "opened_at": ago(minutes=26),
            "owner_name": None,
            "answered_at": None,
            "failures": 0,
            "state": "open",
            "outcome": None,
            "next_at": ago(minutes=-9),
            "step": 1,
            "steps_in_all": 3,
            "steps": [
                {
                    "name": "Ewa Lis",
                    "target": "sms",
                    "handed_out_at": ago(minutes=24),
                    "state": "delivered",
                }
            ],
        }
        schedule = {
            "name": "Ewa Lis",
            "person": "ewa",
            "until": ago(hours=-9),
            "rule": "shift",
            "fault": None,
            "gap_seconds": 0,
            "shifts": [
                {"person": who, "begins": ago(hours=-24 * n), "ends": ago(hours=-24 * n - 24)}
                for n, who in enumerate(("ewa", "jan"))
            ],
            "able": ["ewa", "jan", "maria"],
            "week": [
                {
                    "person": ("ewa", "jan")[n % 2],
                    "name": ("Ewa Lis", "Jan Kos")[n % 2],
                    "rule": "override" if n == 1 else "shift",
                    "begins": ago(hours=-n * 24 - (5 if n else 0)),
                    "ends": ago(hours=-n * 24 - 29),
                }
                for n in range(7)
            ],
        }
        limits = dict.fromkeys(
            (
                "chat",
                "minute",
                "hour",
                "chat_budget",
                "write_budget",
                "withdrawal_budget",
                "service",
                "slack",
                "health",
                "console",
                "login",
            ),
            "30 per minute",
        )
        purposes = {
            "marketing": {
                "email": {"state": "granted", "since": ago(days=9), "wording": "chat-2026-11"}
            }
        }
        trail = {
            "subject": "s",
            "restricted_since": None,
            "erasure": None,
            "next_cursor": None,
            "entries": [
                {
                    "action": "opt-in",
                    "timestamp": ago(days=9),
                    "evidence": {
                        "source": "chat",
                        "wording": "Zgadzam się na informacje handlowe.",
                    },
                }
            ],
        }
        step = {
            "id": str(uuid5(SPACE, "step")),
            "conversation_id": str(uuid5(SPACE, "c1")),
            "status": "scheduled",
            "email": "klient1@example.com",
            "sequence": "default",
            "step": 1,
            "due_at": ago(hours=-20),
            "handed_over_at": None,
        }
        suspect = {
            "id": str(uuid5(SPACE, "suspect")),
            "accepted_at": ago(hours=2),
            "form": "kontakt",
            "suspicion": "fast",
            "fields": {
                "name": "SEO Expert",
                "email": "seo@example.com",
                "message": "Your site can be first on Google.",
            },
        }
        page = {"next_cursor": None}
        return {
            "dlq/stats": counts | {"failed": 2, "in_doubt": 1, "targets": targets},
            "breakers": {"slack": held, "monday": BREAKER, "email": BREAKER, "sms": BREAKER},
            "ledger/check": {"ok": True, "escalation_unsent_seconds": 0},
            "alerts": page | {"items": [alert] * 3, "total": 3},
            "alerts/*": alert | {"deliveries": [delivery, done]},
            "dlq/*": page | {"items": [alert]},
            "cases": page | {"items": [case], "next": None},
            "cases/*": case,
            "silences": page
            | {
                "items": [
                    {
                        "id": 1,
                        "matchers": ["event_type=backup.failed"],
                        "critical": False,
                        "weekly": None,
                        "active_until": ago(hours=-3),
                        "ends": ago(hours=-3),
                        "by": f"staff:{UUID(int=7)} Ewa Lis",
                        "why": "przegląd serwera",
                    }
                ]
            },
            "oncall": {
                "schedules": {
                    "sales": schedule,
                    "ops": schedule | {"name": "Jan Kos", "gap_seconds": 3600},
                },
                "overrides": [
                    {
                        "id": 1,
                        "schedule": "sales",
                        "person": "maria",
                        "begins": ago(hours=-4),
                        "ends": ago(hours=-28),
                        "by": f"staff:{UUID(int=7)} Ewa Lis",
                        "why": "urlop",
                    }
                ],
            },
            "ratelimits": {
                "mode": "enforce",
                "now": limits,
                "sources": dict.fromkeys(limits, "default"),
                **limits,
            },
            "followups": page | {"items": [step]},
            "leads/stats": self.stats(),
            "leads/suspected": page | {"items": [suspect] if self.leads else []},
            "consent/erasures": {"in_progress": 0, "awaiting": 1},
            "consent/erasures/awaiting": page
            | {
                "items": [
                    {
                        "subject": "s",
                        "email": "anna@example.com",
                        "requested_at": ago(days=2),
                        "due_at": ago(days=-28),
                    }
                ]
            },
            "consent/audit": trail,
            "consent/*": trail,
            "unsubscribe/*": {
                "purposes": purposes,
                "restricted_since": None,
                "unsubscribed": False,
            },
            "health/deep": {"queues": {"alerts.slack": 12, "alerts.monday": 0, "alerts.intake": 0}},
        }
