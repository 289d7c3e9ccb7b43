"""When a backup was last verified; `ostoja verify-backup` appends a line."""

from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from services.consent import metrics
from services.consent.settings import ConsentSettings
from services.consent.trail import checkpoints

LOOK_SECONDS = 60.0


class _Verification(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    at: AwareDatetime


async def show(settings: ConsentSettings) -> None:
    """Update the metric; with several hosts the newest counts, so each shows its own."""
    metrics.BACKUP_VERIFIED.set(_last(settings).timestamp())


def _last(settings: ConsentSettings) -> datetime:
    for record in settings.verification_file.newest():
        try:
            return _Verification.model_validate(record).at
        except ValidationError:
            continue
    # A deployment without any backup is as old as its first checkpoint.
    first = next(checkpoints.read(settings.checkpoint_file), None)
    return first.at if first else datetime.now(UTC)
