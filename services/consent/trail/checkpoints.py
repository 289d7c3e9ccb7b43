"""Signed checkpoints of the trail, kept outside the database.

Whoever owns the database can rewrite the whole chain or cut its end, and it verifies. A checkpoint
that was written earlier contradicts that. Rows after the last one are not protected: those of
the last minute, or about the last thousand.
"""

import base64
import binascii
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_serializer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.process.logs import log
from services.consent import metrics
from services.consent.store.vault import parse_keys
from services.consent.trail import chain
from services.consent.trail.append_only_file import AppendOnlyFile
from services.consent.trail.chain import Position

EVERY_ROWS = 1_000
EVERY = timedelta(seconds=60)
LOOK_SECONDS = 1.0
MOST = 1_000  # checkpoints at once
LAST_WITNESSES = 2_000  # ours, and as many as an auditor may send
EARLIER_WITNESSES = 10_000


class Checkpoint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rows: int = Field(ge=1)
    """The number of rows, which is also the last row's id: ids have no gaps."""
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    """The last row's hash."""
    at: AwareDatetime
    key: str
    signature: str

    @field_serializer("at")
    def _at(self, at: datetime) -> str:
        return at.isoformat()  # exactly the text that is signed

    @property
    def position(self) -> Position:
        return Position(self.rows, bytes.fromhex(self.hash))

    def signed(self) -> bytes:
        """Return the signed bytes."""
        return f"ostoja consent trail\n{self.rows}\n{self.hash}\n{self.at.isoformat()}\n".encode()


class Signer:
    """Ed25519: an auditor verifies with the public key and cannot sign. The first key signs."""

    def __init__(self, keys: str) -> None:
        self._private = {
            key_id: Ed25519PrivateKey.from_private_bytes(seed)
            for key_id, seed in parse_keys(keys).items()
        }
        self._current = next(iter(self._private))

    @property
    def public_keys(self) -> Mapping[str, str]:
        """The raw public keys, in base64, by id."""
        return {
            key_id: base64.b64encode(key.public_key().public_bytes_raw()).decode()
            for key_id, key in self._private.items()
        }

    def sign(self, position: Position, at: datetime) -> Checkpoint:
        unsigned = Checkpoint(
            rows=position.rows, hash=position.hash.hex(), at=at, key=self._current, signature=""
        )
        return unsigned.model_copy(update={"signature": self._signature(unsigned.signed())})

    def sign_text(self, text: str) -> dict[str, str]:
        """Return the signature of a text, with the key's id and its public part."""
        public, signature = self.public_keys[self._current], self._signature(text.encode())
        return {"key": self._current, "public_key": public, "signature": signature}

    def _signature(self, text: bytes) -> str:
        return base64.b64encode(self._private[self._current].sign(text)).decode()

    def is_ours(self, checkpoint: Checkpoint) -> bool:
        try:
            signature = base64.b64decode(checkpoint.signature, validate=True)
            private = self._private[checkpoint.key]
            private.public_key().verify(signature, checkpoint.signed())
        except (KeyError, binascii.Error, InvalidSignature):
            return False
        return True


async def keep(engine: AsyncEngine, file: AppendOnlyFile, signer: Signer) -> None:
    """Sign new rows if a checkpoint is due; runs every second.

    Each process writes to its own host's disk: duplicates do no harm, and processes that share a
    file see each other's. A trail that contradicts its last checkpoint gets no further one.
    """
    last = next(file.newest(Checkpoint), None)
    signed = last.rows if last else 0
    async with engine.connect() as tx:
        if await chain.may_be_undone(tx):
            return
        head = await chain.head(tx)
        if last is not None and await chain.positions(tx, [signed]) != [last.position]:
            metrics.TRAIL_MISMATCH.set(1)
            log.error("checkpoints.trail_mismatch", rows=signed, at=last.at.isoformat())
            return
        now = datetime.now(UTC)
        due = range(signed + EVERY_ROWS, head.rows + 1, EVERY_ROWS)[:MOST]
        positions = await chain.positions(tx, due)
    if not positions and head.rows > signed and (last is None or now - last.at >= EVERY):
        positions = [head]
    metrics.UNSIGNED_ROWS.set(head.rows - signed)  # set it even if the file cannot be written
    if positions:
        await file.append(*(signer.sign(each, now).model_dump(mode="json") for each in positions))
        signed = positions[-1].rows
    metrics.TRAIL_MISMATCH.set(0)
    metrics.UNSIGNED_ROWS.set(head.rows - signed)


class Witnesses:
    """Checkpoints as witnesses of the chain.

    The newest one with our signature vouches for all rows up to its own; earlier ones show where a
    rewritten chain begins to differ. So signatures are verified only for the newest, and for each
    that contradicts the chain: verifying all would take longer than verifying the chain. One per
    minute for years would not fit into memory either, so earlier ones are sampled.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint], signer: Signer) -> None:
        self._signer = signer
        self.forged = 0
        """How many were verified and do not have our signature."""
        self.vouching: int | None = None
        """The row of the newest one with our signature, if the chain agrees with it."""
        ordered = sorted(_some(checkpoints), key=lambda each: each.rows)
        while ordered and not signer.is_ours(ordered[-1]):
            ordered.pop()
            self.forged += 1
        self._newest = ordered[-1] if ordered else None
        self._by_rows: dict[int, list[Checkpoint]] = {}
        for checkpoint in ordered:
            self._by_rows.setdefault(checkpoint.rows, []).append(checkpoint)

    def agree(self, position: Position) -> bool | None:
        agreed = None
        for checkpoint in self._by_rows.get(position.rows, ()):
            if checkpoint.position == position:
                agreed = True
                if checkpoint is self._newest:
                    self.vouching = position.rows
            elif self._signer.is_ours(checkpoint):
                return False
            else:
                self.forged += 1
        return agreed

    def saw_beyond(self, rows: int) -> bool:
        return self._newest is not None and self._newest.rows > rows


def _some(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Keep the last checkpoints and an even sample of the earlier ones."""
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


def report(found: chain.Verification, witnesses: Witnesses) -> dict[str, Any]:
    """Report a verification, for the API and the command."""
    return {
        "ok": found.ok and not witnesses.forged,
        "rows": found.reached.rows,
        "first_broken": found.first_broken,
        "next_cursor": None if found.complete else str(found.reached),
        "last_checkpoint": witnesses.vouching,
        "forged_checkpoints": witnesses.forged,
    }
