"""The cost of a scheduler poll, without and with ten million past steps."""

import time
from datetime import UTC, datetime
from typing import Any

import uvloop

from bench.followups.hand_over import DUE
from bench.followups.system import Followups, followups
from bench.lab import ROOT, Lab
from bench.measure import percentile
from bench.part import Part, table
from libs.common.database import postgres
from libs.domain.signed_links import Tokens
from services.followups import config
from services.followups.mails.compose import Mails
from services.followups.mails.scheduler import BATCH, Scheduler
from services.followups.store import sql, steps

ROWS = 10_000_000
A_TALK = 10
AT_A_TIME = 500_000
DUE_NOW = 1000
TURNS = 15
CAP = 1_000_000
EMPTY, FULL = "no past steps", f"{ROWS:,} past steps"

_PAST = """
WITH talk AS (
    INSERT INTO followups.chat_conversations (id, email, updated_at)
    SELECT gen_random_uuid(), 'past' || gen_random_uuid() || '@example.com',
        now() - random() * interval '3 years'
    FROM generate_series(1, %(talks)s) RETURNING id, email, updated_at AS at
)
INSERT INTO followups.followup_event (id, conversation_id, followup_number, email, sequence, step,
    enrolled_by, status, due_at, handed_over_at, sent_at)
SELECT gen_random_uuid(), id, number, email, 'default', 1, 'chat', 'sent', at, at, at
FROM talk, generate_series(1, %(each)s) AS number
"""


def run(lab: Lab) -> Any:
    with followups(lab) as empty, followups(lab) as full:
        began = time.monotonic()
        for done in range(0, ROWS, AT_A_TIME):
            full.query(_PAST, {"talks": min(AT_A_TIME, ROWS - done) // A_TALK, "each": A_TALK})
        print(f"  {ROWS:,} rows in {time.monotonic() - began:.0f} s", flush=True)
        systems = {EMPTY: empty, FULL: full}
        looks: dict[str, list[float]] = {}
        for system in systems.values():
            system.query("ANALYZE")
        for due in (0, DUE_NOW):
            for _ in range(TURNS):
                for title, system in systems.items():
                    if due:
                        system.query(DUE, {"count": due})
                    polls = uvloop.run(_polls(system, DUE_NOW // BATCH))
                    looks.setdefault(f"{title}, {due:,} due", []).extend(polls)
        full.query(DUE, {"count": DUE_NOW})
        return {"looks": looks, "plan": _plan(full)}


async def _polls(system: Followups, count: int) -> list[float]:
    """Poll; the first poll of a process, which prepares its statements, is not counted."""
    configured = config.load(
        ROOT / "config.example" / "followups.toml",
        ROOT / "config.example" / "company.toml",
        quiet_hours=False,
    )
    mails = Mails(configured, Tokens(system.values["TOKEN_KEYS"]), "https://example.com")
    took = []
    async with postgres.connect(
        str(system.database), application_name="bench", pool_size=1
    ) as engine:
        async with engine.connect() as tx:
            await steps.claim(tx, BATCH)
        scheduler = Scheduler(engine, configured, mails, CAP)
        for _ in range(count):
            began = time.monotonic()
            await scheduler.hand_over(datetime.now(UTC))
            took.append(1000 * (time.monotonic() - began))
    return took


def _plan(system: Followups) -> str:
    """Return PostgreSQL's plan of the claim."""
    claim = sql.run.texts["claim"].replace(":limit", str(BATCH))
    explain = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"
    lines = system.query(f"SET search_path = followups; {explain} {claim}")
    return "\n".join(line for (line,) in lines)


def render(found: Any) -> str:
    looks = found["looks"]
    rows = []
    for title, took in looks.items():
        base = looks[title.replace(FULL, EMPTY)]
        share = percentile(took, 0.5) / percentile(base, 0.5)
        rows.append((title, f"{percentile(took, 0.5):.2f}", f"{max(took):.2f}", f"{share:.2f}"))
    return f"""\
### A poll of the scheduler

{table(("", "median, ms", "largest, ms", "ratio of medians"), rows)}

A poll claims up to {BATCH} steps, checks the daily cap of their addresses, renders their mails into
the outbox and commits; {TURNS * DUE_NOW // BATCH} polls of each case, alternating. The claim reads
the partial index `followup_event_due`, which has only scheduled steps; its plan with all past
steps:

```
{found["plan"]}
```"""


POLL = Part("poll", run, render, long=True)
