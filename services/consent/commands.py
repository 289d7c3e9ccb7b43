"""`python -m services.consent verify | rewrap`, beside the running service."""

import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from libs.common import db
from services.consent import checkpoints, trail
from services.consent.checkpoints import Signer, Witnesses
from services.consent.records import Records
from services.consent.settings import ConsentSettings
from services.consent.store import erasing, people
from services.consent.vault import Vault

PROGRESS_SECONDS = 5.0
REWRAP_BATCH = 500


async def verify(settings: ConsentSettings) -> int:
    """Verify the whole trail, however long it is; the verdict is one line of JSON."""
    signer = Signer(settings.consent_checkpoint_keys.get_secret_value())
    records = Records(settings.consent_records_dir / checkpoints.FILE)
    witnesses = Witnesses(checkpoints.read(records), signer)
    url = settings.database_url.get_secret_value()
    start = trail.START
    async with db.connect(url, application_name="consent verify", pool_size=1) as engine:
        while True:
            found = await trail.verify(
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
    """Wrap every person's key by the first master key; then the older ones can be taken away.

    In small transactions: ended half-way it has done half, and begins again with the rest.
    """
    vault = Vault(
        settings.consent_master_keys.get_secret_value(),
        settings.consent_hash_key.get_secret_value(),
    )
    url = settings.database_url.get_secret_value()
    done = 0
    after: bytes | None = b""
    async with db.connect(url, application_name="consent rewrap", pool_size=1) as engine:
        while after is not None:
            async with engine.begin() as tx:
                count, after = await people.rewrap(tx, vault, after, REWRAP_BATCH)
            done += count
        async with engine.begin() as tx:
            for order in await erasing.sealed_before(tx, vault.current):
                address = vault.open_address(order.erasure_id, order.sealed)
                await erasing.reseal(
                    tx, order.erasure_id, vault.seal_address(order.erasure_id, address)
                )
    sys.stdout.write(f"{done} keys were wrapped anew, all are by {vault.current} now\n")
    return 0


COMMANDS: dict[str, Callable[[ConsentSettings], Coroutine[Any, Any, int]]] = {
    "verify": verify,
    "rewrap": rewrap,
}
