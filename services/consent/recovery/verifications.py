"""When a backup was last verified; `ostoja verify-backup` appends a line."""

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

from services.consent import metrics
from services.consent.settings import ConsentSettings
from services.consent.trail.checkpoints import Checkpoint

LOOK_SECONDS = 60.0


class _Verification(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    at: AwareDatetime


async def show(settings: ConsentSettings) -> None:
    """Update the metric; with several hosts the newest counts, so each shows its own."""
    # A deployment without any backup is as old as its first checkpoint.
    last = next(settings.verification_file.newest(_Verification), None) or next(
        settings.checkpoint_file.read(Checkpoint), None
    )
    metrics.BACKUP_VERIFIED.set((last.at if last else datetime.now(UTC)).timestamp())
