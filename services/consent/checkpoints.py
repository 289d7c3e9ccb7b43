"""Signed notes of how far the trail reached, kept outside the database.

Whoever owns the database can rewrite the whole chain or cut its end, and it verifies. A checkpoint
that was exported before contradicts that. What is younger than the last one is not protected:
less than a minute, and less than a thousand rows and the second in which they came.
"""

import base64
import binascii
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_serializer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import logs
from libs.common.tokens import parse_keys
from services.consent import metrics, trail
from services.consent.records import Records
from services.consent.trail import Place

log = logs.get_logger(__name__)

FILE = "checkpoints.jsonl"
EVERY_ROWS = 1_000
EVERY = timedelta(seconds=60)
LOOK_SECONDS = 1.0
MOST = 1_000  # checkpoints at once
LAST_WITNESSES = 2_000  # as many of ours as an auditor may bring
EARLIER_WITNESSES = 10_000
SEED_BYTES = 32


class Checkpoint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rows: int = Field(ge=1)
    """How many rows the trail had: they are numbered without a gap, so the last one's id too."""
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    """The last row's."""
    at: AwareDatetime
    key: str
    signature: str

    @field_serializer("at")
    def _at(self, at: datetime) -> str:
        return at.isoformat()  # the very text that is signed

    @property
    def place(self) -> Place:
        return Place(self.rows, bytes.fromhex(self.hash))

    def signed(self) -> bytes:
        """Return the bytes under the signature."""
        return f"ostoja consent trail\n{self.rows}\n{self.hash}\n{self.at.isoformat()}\n".encode()


class Signer:
    """Ed25519: an auditor checks with the public key, and cannot sign. The first key signs."""

    def __init__(self, keys: str) -> None:
        self._private = {
            key_id: Ed25519PrivateKey.from_private_bytes(seed)
            for key_id, seed in parse_seeds(keys).items()
        }
        self._current = next(iter(self._private))

    @property
    def public_keys(self) -> Mapping[str, str]:
        """The raw public keys, in base64, by id."""
        return {
            key_id: base64.b64encode(key.public_key().public_bytes_raw()).decode()
            for key_id, key in self._private.items()
        }

    def sign(self, place: Place, at: datetime) -> Checkpoint:
        unsigned = Checkpoint(
            rows=place.rows, hash=place.hash.hex(), at=at, key=self._current, signature=""
        )
        signature = self._private[self._current].sign(unsigned.signed())
        return unsigned.model_copy(update={"signature": base64.b64encode(signature).decode()})

    def is_ours(self, checkpoint: Checkpoint) -> bool:
        private = self._private.get(checkpoint.key)
        return private is not None and _verifies(private.public_key(), checkpoint)


def _verifies(key: Ed25519PublicKey, checkpoint: Checkpoint) -> bool:
    try:
        signature = base64.b64decode(checkpoint.signature, validate=True)
        key.verify(signature, checkpoint.signed())
    except (binascii.Error, InvalidSignature):
        return False
    return True


def parse_seeds(text: str) -> dict[str, bytes]:
    """:raises ValueError: names the key id at fault, never its bytes"""
    seeds = parse_keys(text)
    for key_id, seed in seeds.items():
        if len(seed) != SEED_BYTES:
            raise ValueError(f"key {key_id!r} must have {SEED_BYTES} bytes")
    return seeds


def read(records: Records) -> Iterable[Checkpoint]:
    for record in records.read():
        try:
            yield Checkpoint.model_validate(record)
        except ValidationError:
            log.warning("checkpoints.damaged", file=records.path.name)


async def keep(engine: AsyncEngine, records: Records, signer: Signer) -> None:
    """Sign what was added since the last checkpoint, if it is time; run each second.

    Each process writes on its own host's disk: copies are no harm, and those that share a file see
    each other's. A trail that contradicts its last checkpoint gets no further one.
    """
    found = records.last()
    last = None if found is None else Checkpoint.model_validate(found)
    signed = last.rows if last else 0
    async with engine.connect() as tx:
        head = await trail.head(tx)
        if last is not None and await trail.places(tx, [signed]) != [last.place]:
            metrics.TRAIL_CONTRADICTED.set(1)
            log.error("checkpoints.trail_contradicts", rows=signed, at=last.at.isoformat())
            return
        now = datetime.now(UTC)
        places = await trail.places(
            tx, range(signed + EVERY_ROWS, head.rows + 1, EVERY_ROWS)[:MOST]
        )
    if not places and head.rows > signed and (last is None or now - last.at >= EVERY):
        places = [head]
    if places:
        await records.append(*(signer.sign(place, now).model_dump(mode="json") for place in places))
        signed = places[-1].rows
    metrics.TRAIL_CONTRADICTED.set(0)
    metrics.UNSIGNED_ROWS.set(head.rows - signed)


class Witnesses:
    """Checkpoints beside the chain.

    The newest with our signature vouches for all rows up to its own; those before it say where a
    rewritten chain begins to differ. So a signature is checked of the newest, and of each that
    contradicts the chain: checking all would take longer than the chain itself. And all would not
    fit into memory, a minute each for years: of those that are not among the last some are kept.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint], signer: Signer) -> None:
        self._signer = signer
        self.forged = 0
        """How many were looked at and bear no signature of ours."""
        self.vouching: int | None = None
        """The row of the newest of ours, once the chain was found to agree with it."""
        ordered = sorted(_some(checkpoints), key=lambda each: each.rows)
        while ordered and not signer.is_ours(ordered[-1]):
            ordered.pop()
            self.forged += 1
        self._newest = ordered[-1] if ordered else None
        self._by_rows: dict[int, list[Checkpoint]] = {}
        for checkpoint in ordered:
            self._by_rows.setdefault(checkpoint.rows, []).append(checkpoint)

    def agree(self, place: Place) -> bool | None:
        answer = None
        for checkpoint in self._by_rows.get(place.rows, ()):
            if checkpoint.place == place:
                answer = True
                if checkpoint is self._newest:
                    self.vouching = place.rows
            elif self._signer.is_ours(checkpoint):
                return False
            else:
                self.forged += 1
        return answer

    def saw_beyond(self, rows: int) -> bool:
        return self._newest is not None and self._newest.rows > rows


def _some(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Keep the last ones, and of the earlier ones every so many, evenly."""
    last: deque[Checkpoint] = deque()
    earlier: list[Checkpoint] = []
    stride = 1
    for number, each in enumerate(checkpoints):
        last.append(each)
        if len(last) <= LAST_WITNESSES:
            continue
        oldest = last.popleft()
        if number % stride == 0:
            earlier.append(oldest)
        if len(earlier) > EARLIER_WITNESSES:
            earlier, stride = earlier[::2], 2 * stride
    return [*earlier, *last]


def report(found: trail.Verification, witnesses: Witnesses) -> dict[str, Any]:
    """Say what came of a verification, for the API and the command."""
    return {
        "ok": found.ok and not witnesses.forged,
        "rows": found.reached.rows,
        "first_broken": found.first_broken,
        "next_cursor": None if found.complete else str(found.reached),
        "last_checkpoint": witnesses.vouching,
        "forged_checkpoints": witnesses.forged,
    }
