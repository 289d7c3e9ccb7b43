"""What a poll costs: a claim of a hundred, with nothing and with ten million steps behind it."""

import time
from typing import Any

import uvloop
from sqlalchemy.dialects import postgresql

from bench.followups.hand_over import DUE
from bench.followups.system import Followups, followups
from bench.lab import Lab
from bench.measure import percentile
from bench.part import Part, table
from libs.common import db
from services.followups.scheduler import BATCH
from services.followups.store import steps

ROWS = 10_000_000
A_TALK = 10
AT_A_TIME = 500_000
DUE_NOW = 1000
LOOKS = 60
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
        took: dict[str, list[float]] = {f"{title}, {DUE_NOW:,} due": [] for title in systems}
        idle: dict[str, list[float]] = {f"{title}, none due": [] for title in systems}
        for system in systems.values():
            system.query("ANALYZE")
        _look(systems, idle, "none due")
        for system in systems.values():
            system.query(DUE, {"count": DUE_NOW})
            system.query("ANALYZE")
        _look(systems, took, f"{DUE_NOW:,} due")
        plan = _plan(full)
    return {"looks": idle | took, "plan": plan}


def _look(systems: dict[str, Followups], found: dict[str, list[float]], due: str) -> None:
    for _ in range(LOOKS // 10):
        for title, system in systems.items():
            found[f"{title}, {due}"] += uvloop.run(_claims(system, 10))


async def _claims(system: Followups, count: int) -> list[float]:
    """Claim, and take it back; the first, which finds nothing prepared, is not counted."""
    took = []
    async with db.connect(str(system.database), application_name="bench", pool_size=1) as engine:
        for _ in range(count + 1):
            async with engine.connect() as tx:
                began = time.monotonic()
                await steps.claim(tx, BATCH)
                took.append(1000 * (time.monotonic() - began))
                await tx.rollback()
    return took[1:]


def _plan(system: Followups) -> str:
    """Return the plan of the claim, as PostgreSQL made it."""
    claim = steps.claiming(BATCH).compile(
        dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]
        compile_kwargs={"literal_binds": True},
    )
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

The claim of {BATCH}, taken back each time, {LOOKS} times, by turns. It reads the partial index
`followup_event_due`, which holds scheduled steps only; with the past behind it:

```
{found["plan"]}
```"""


POLL = Part("poll", run, render, long=True)
