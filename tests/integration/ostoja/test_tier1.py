"""`ostoja import tier1`: the old tables on the whole system, killed at each of its calls."""

import asyncio
import signal
import sys
import uuid
from collections import Counter
from pathlib import Path

from tests.support.cli import Done, fits, ostoja
from tests.support.eventually import eventually
from tests.support.stack import Stack
from tests.support.system import WORDING

TABLES = Path(__file__).with_name("tier1.sql").read_text(encoding="utf-8")
KILLED = """
import os, signal, sys
from ostoja import api
from ostoja.app import main
from ostoja.commands import tier1
tier1.PART, left, answer = 60, int(sys.argv.pop(1)), api.Api.answer
def counted(*args, **given):
    global left
    found = answer(*args, **given)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
api.Api.answer = counted
main()
"""


async def killed_after(calls: int, *words: str, settings: dict[str, str]) -> int | None:
    command = (sys.executable, "-c", KILLED, str(calls), *words)
    process = await asyncio.create_subprocess_exec(*command, env=settings)
    return await process.wait()


async def test_the_old_tables_are_taken_over_once_whatever_call_it_is_killed_at(
    stack: Stack, tmp_path: Path
) -> None:
    run, role = f"r{uuid.uuid4().hex[:8]}", "followups"
    stack.query(f"""
        DROP SCHEMA IF EXISTS flask CASCADE; CREATE SCHEMA flask; SET search_path = flask;
        {TABLES.replace("{run}", run).replace("%", "%%")};
        GRANT USAGE ON SCHEMA flask TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA flask TO {role}
    """)
    made = await ostoja(
        "keys", "create", "tier1", "--scope", "leads:import", "--scope", "alerts:write",
        "--purpose", "the switch", "--owner", "Anna Nowak", "--days", "30", system=stack,
    )  # fmt: skip
    file, wording = tmp_path / "report.jsonl", tmp_path / "wording.txt"
    wording.write_text(WORDING.text + "\n")
    url = stack.database.of(role)
    words = (
        "import", "tier1", "--database", f"{url}?options=-csearch_path%3Dflask",
        "--wording", str(wording), "--zone", "Europe/Warsaw", "--report", str(file),
    )  # fmt: skip
    settings = {"OSTOJA_KEY": made.out.strip()}

    async def ran(*more: str) -> Done:
        return await ostoja(*words, *more, system=stack, settings=settings)

    shown = await ran()
    assert (shown.code, file.exists(), fits(shown.out)) == (0, False, True), shown
    assert "nothing was done" in shown.err
    (counted,) = (await ran("--json")).json
    assert counted["rows"] == {"withdrawals": 23, "followups": 65, "conversations": 154,
                               "consents": 51, "alerts": 11}  # fmt: skip
    left = {
        (each["table"], each["why"].partition(":")[0]): each["rows"] for each in counted["left"]
    }
    assert left == {
        ("followup_event", "not sent"): 20, ("followup_event", "no e-mail address"): 1,
        ("chat_conversations", "no e-mail address"): 2,
        ("chat_conversations", "revoked consent"): 1,
        ("consent_audit_log", "withdrew, too"): 11, ("consent_audit_log", "no e-mail address"): 1,
        ("consent_audit_log", "unknown action export"): 1,
        ("consent_audit_log", "unknown action "): 1, ("dead_letter_queue", "no payload"): 1,
    }  # fmt: skip
    assert (
        stack.query("SELECT FROM followups.chat_conversations WHERE email LIKE %s", f"%{run}%")
        == []
    )

    env = settings | {"OSTOJA_URL": stack.url, "PYTHONPATH": "."}
    calls = 1
    while await killed_after(calls, *words, "--yes", settings=env) == -signal.SIGKILL:
        calls += 1
        if calls == 11:  # as if the power had gone, too
            file.write_bytes(file.read_bytes()[:-20])
    assert calls > 11
    again = await ran("--yes", "--json")
    assert again.code == 1
    assert {each: n for each, n in again.json[0]["new"].items() if n} == {}

    async def arrived() -> bool:
        entries = await trail(stack, f"p51@{run}.example")
        return bool(entries) and (await stack.balanced()) is not None

    await eventually(arrived, 60)
    texts = Counter(
        each["body"]["text"] for each in await stack.sandbox.received("slack") if run in str(each)
    )
    undelivered = [f"{run} lead {n}" for n in (1, 2, 4, 5, 7, 8, 10, 11, 13)]
    assert texts == dict.fromkeys(undelivered, 1)
    acts = {who: await trail(stack, f"{who}@{run}.example") for who in ("p1", "p51", "p70", "gone")}
    assert acts == {"p1": ["opt-in"], "p51": ["unsubscribe"], "p70": ["unsubscribe"],
                    "gone": ["unsubscribe"]}  # fmt: skip
    states = {
        who: await state(stack, f"{who}@{run}.example") for who in ("p1", "p51", "p71", "p74")
    }
    assert states == {"p1": "granted", "p51": "withdrawn", "p71": "withdrawn", "p74": "waiting"}
    await stack.follow_up(f"p1@{run}.example")  # sent, both; and Sending may have been
    await stack.follow_up(f"p61@{run}.example")
    sent = stack.query(
        "SELECT email, step, status, sent_at FROM followups.followup_event WHERE email LIKE %s",
        f"%{run}%",
    )
    assert Counter(row.status for row in sent) == {"sent": 63}
    (first,) = [row for row in sent if (row.email, row.step) == (f"p1@{run}.example", 1)]
    assert first.sent_at.isoformat() == "2025-02-01T07:00:00+00:00"  # Warsaw's 8 o'clock
    table = "SELECT email, state FROM followups.chat_conversations WHERE email LIKE %s"
    known = {
        row.email.partition("@")[0]: row.state["facts"] for row in stack.query(table, f"%{run}%")
    }
    assert (known["p1"]["name"], known["p2"]["name"]) == ("Osoba Jeden", "Osoba 2")
    assert (known["p2"]["budget"], known["p2"]["phone"]) == (2000, "+48600700800")
    assert (known["zly"]["name"], "name" in known["gone"]) == ("Zła Liczba", False)
    assert await stack.sandbox.mails(f"p1@{run}.example") == []
    assert len(await stack.sandbox.mails(f"p74@{run}.example")) == 1  # asks to confirm


async def trail(stack: Stack, email: str) -> list[str]:
    return [each["action"] for each in (await stack.audit(email))["entries"]]


async def state(stack: Stack, email: str) -> str:
    return str((await stack.consents(email))["purposes"]["marketing"]["email"]["state"])
