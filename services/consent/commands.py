"""`python -m services.consent verify | rewrap | rehash`; the first two run beside the service."""

import json
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import postgres
from services.consent.settings import ConsentSettings
from services.consent.store import hash_keys
from services.consent.store.sql import run
from services.consent.store.vault import WrappedKey
from services.consent.trail import chain, checkpoints
from services.consent.trail.chain import START
from services.consent.trail.checkpoints import Checkpoint, Witnesses

PROGRESS_SECONDS = 5.0
REWRAP_BATCH = 500


def _connect(settings: ConsentSettings, command: str) -> AbstractAsyncContextManager[AsyncEngine]:
    url = settings.database_url.get_secret_value()
    return postgres.connect(url, application_name=f"consent {command}", pool_size=1)


async def verify(settings: ConsentSettings) -> int:
    """Verify the whole trail, however long it is, and print the result as one line of JSON."""
    witnesses = Witnesses(settings.checkpoint_file.read(Checkpoint), settings.signer())
    start = START
    async with _connect(settings, "verify") as engine:
        while True:
            found = await chain.verify(
                engine, start=start, seconds=PROGRESS_SECONDS, witnesses=witnesses
            )
            if found.complete:
                break
            start = found.reached
            sys.stderr.write(f"{start.rows} rows\n")
    report = checkpoints.report(found, witnesses)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if report["ok"] else 1


async def rewrap(settings: ConsentSettings) -> int:
    """Wrap every subject's key with the first master key, after which the others can be removed.

    It runs in small transactions: after an interruption, the next run continues.
    """
    vault = settings.vault()
    done, after = 0, b""
    async with _connect(settings, "rewrap") as engine:
        while True:
            async with engine.begin() as tx:
                asked = {"hash": after, "current": vault.current, "batch": REWRAP_BATCH}
                if not (rows := await run(tx, "wrapped_before", **asked)):
                    break
                keys = [
                    vault.rewrap(row.id, WrappedKey(row.master_key_id, row.wrapped_key)).wrapped
                    for row in rows
                ]
                ids = [str(row.id) for row in rows]
                await run(tx, "rewrap", current=vault.current, ids=ids, wrapped=keys)
            done, after = done + len(rows), rows[-1].lookup_hash
        async with engine.begin() as tx:
            for order in await run(tx, "sealed_before", current=vault.current):
                sealed = WrappedKey(order.master_key_id, order.sealed_subject)
                subject = vault.open_order(order.id, sealed)
                new = vault.seal_order(order.id, subject)
                key = {"master": new.master_key_id, "key": new.wrapped}
                await run(tx, "seal_order", id=order.id, **key, ordered=False)
    sys.stdout.write(f"rewrapped {done} keys; all are wrapped with {vault.current} now\n")
    return 0


async def rehash(settings: ConsentSettings) -> int:
    """Rehash every stored hash with the keys that were added in front; consent must be stopped.

    One transaction: an interrupted run has no effect, and repeating a complete one is harmless.
    """
    vault = settings.vault()
    async with _connect(settings, "rehash") as engine, engine.begin() as tx:
        await run(tx, "lock_hash_keys")
        if count := (await run(tx, "other_connections")).scalar_one():
            sys.stderr.write(f"stop consent first: it has {count} open connections\n")
            return 1
        made_by = await hash_keys.applied(tx, vault.hash_keys)
        if vault.hash_keys[: len(made_by)] != made_by:
            sys.stderr.write("CONSENT_HASH_KEY lacks an older key, or the order has changed\n")
            return 1
        done = 0
        if made_by != vault.hash_keys:
            hashed = partial(vault.rehash, keys=len(made_by))
            done = await hash_keys.rehash(tx, len(made_by), vault.hash_keys, hashed)
    sys.stdout.write(f"rehashed {done} hashes; all are made with the first key now\n")
    return 0


COMMANDS: dict[str, Callable[[ConsentSettings], Coroutine[Any, Any, int]]] = {
    "verify": verify,
    "rewrap": rewrap,
    "rehash": rehash,
}
