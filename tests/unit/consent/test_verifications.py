"""The age of the last verified backup."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.consent import metrics
from services.consent.recovery import verifications
from services.consent.trail.append_only_file import AppendOnlyFile
from services.consent.trail.chain import Position
from services.consent.trail.checkpoints import Signer

SIGNER = Signer("k1:" + "A" * 43 + "=")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def settings(folder: Path) -> Any:
    return SimpleNamespace(
        verification_file=AppendOnlyFile(folder / "verifications.jsonl"),
        checkpoint_file=AppendOnlyFile(folder / "checkpoints.jsonl"),
    )


async def shown(folder: Path) -> float:
    await verifications.show(settings(folder))
    return float(metrics.BACKUP_VERIFIED._value.get())


async def test_a_new_deployment_has_nothing_to_verify_yet(tmp_path: Path) -> None:
    assert await shown(tmp_path) >= (datetime.now(UTC) - timedelta(minutes=1)).timestamp()


async def test_without_any_backup_the_age_counts_from_the_first_checkpoint(tmp_path: Path) -> None:
    for day in range(3):
        seal = SIGNER.sign(Position(day + 1, bytes(32)), LONG_AGO + timedelta(days=day))
        settings(tmp_path).checkpoint_file.write([seal.model_dump(mode="json")])
    assert await shown(tmp_path) == LONG_AGO.timestamp()


async def test_the_newest_verification_counts_and_a_cut_line_does_not(tmp_path: Path) -> None:
    file = settings(tmp_path).verification_file
    file.write([{"at": (LONG_AGO + timedelta(days=day)).isoformat()} for day in (1, 2)])
    with file.path.open("a") as text:
        text.write('{"at": "2027-')
    assert await shown(tmp_path) == (LONG_AGO + timedelta(days=2)).timestamp()
