"""Mails that come back, as providers write them (tests/unit/followups/mails), and hostile ones."""

import base64
import random
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from services.followups.mails.marks import Marks

FOLDER = Path(__file__).parents[1] / "unit" / "followups" / "mails"
NAMES = sorted(path.stem for path in FOLDER.glob("*.eml"))
KEYS = f"k1:{base64.b64encode(bytes(32)).decode()}"
"""Under which the tokens of the samples are signed."""
STEP = uuid.UUID("11111111-2222-4333-8444-555555555555")
MARKS = Marks(KEYS, "bounce@example.com")
RECIPIENT = "anna@example.org"


def sample(name: str, step: uuid.UUID = STEP, recipient: str = RECIPIENT) -> bytes:
    """Return a mail about this step, sent to this person."""
    raw = (FOLDER / f"{name}.eml").read_bytes()
    for action in ("b", "u"):
        was, now = (MARKS.address(action, each) for each in (STEP, step))
        raw = re.sub(re.escape(was.encode()), now.encode(), raw, flags=re.IGNORECASE)
    raw = raw.replace(str(STEP).encode(), str(step).encode())
    return raw.replace(RECIPIENT.encode(), recipient.encode())


def hostile(seed: int, count: int) -> Iterator[bytes]:
    random_ = random.Random(seed)
    whole = [sample(name) for name in NAMES]
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](random_, random_.choice(whole))


def _cut(of: random.Random, mail: bytes) -> bytes:
    return mail[: of.randrange(len(mail))]


def _flipped(of: random.Random, mail: bytes) -> bytes:
    changed = bytearray(mail)
    for _ in range(of.randrange(1, 200)):
        changed[of.randrange(len(changed))] = of.randrange(256)
    return bytes(changed)


def _shuffled(of: random.Random, mail: bytes) -> bytes:
    lines = mail.split(b"\n")
    of.shuffle(lines)
    return b"\n".join(lines)


def _nested(of: random.Random, mail: bytes) -> bytes:
    heads = [
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n)
        for n in range(of.randrange(2, 150))
    ]
    return b"".join(heads) + mail


def _parts(of: random.Random, mail: bytes) -> bytes:
    part = of.choice(
        [b"\n", b"Content-Type: message/rfc822\n\n", b"Content-Type: text/html\n\n<p>\n"]
    )
    head = b"Content-Type: multipart/mixed; boundary=b\n\n"
    return head + (b"--b\n" + part) * of.randrange(2, 1500) + mail


def _headed(of: random.Random, mail: bytes) -> bytes:
    name = of.choice([b"Received", b"References", b"Content-Type", b"Subject", b"To", b"X-A"])
    value = of.choice([b"a", b"<", b'"', b"=?utf-8?q?", b"; a*0*=b", b"(", b"\xff", b"@", b", a@b"])
    return b"%s: %s\n" % (name, value * of.randrange(1, 60_000)) + mail


def _headers(of: random.Random, mail: bytes) -> bytes:
    return b"To: a@example.org\n" * of.randrange(1, 5000) + mail


def _encoded(of: random.Random, mail: bytes) -> bytes:
    kind = of.choice([b"base64", b"quoted-printable", b"x-uuencode", b"nonsense"])
    charset = of.choice([b"utf-7", b"idna", b"zip", b"\xff\xfe", b"unicode_escape", b"utf-16"])
    head = b"Content-Type: text/plain; charset=%s\nContent-Transfer-Encoding: %s\n\n"
    return head % (charset, kind) + of.randbytes(of.randrange(5000))


def _quoting(of: random.Random, _: bytes) -> bytes:
    line = of.choice(
        [b"> ", b"On ", b"From: a\n", b"Dnia ", b"_", b"- a\n", b" \n", b"CAUTION: ", b"--\n"]
    )
    return b"Content-Type: text/plain\n\nTak.\n" + line * of.randrange(1, 20_000)


def _marked_up(of: random.Random, _: bytes) -> bytes:
    tag = of.choice(
        [b"<div>", b"<!--", b"<![CDATA[", b"<a href='", b"&#x", b"</p", b"<script>", b"<"]
    )
    return b"Content-Type: text/html\n\n" + tag * of.randrange(1, 20_000)


_KINDS = (
    _cut, _flipped, _shuffled, _nested, _parts, _headed, _headers, _encoded, _quoting, _marked_up,
)  # fmt: skip
