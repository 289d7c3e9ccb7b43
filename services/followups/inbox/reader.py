"""Reads one mail of a stranger: bytes in, what it means out. It renders nothing, follows nothing.

Run as a program (`worker.py` does, with limits of memory and time), it reads a mail from its
standard input and writes the fields of `Read` as JSON.
"""

import hashlib
import json
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from email.utils import parseaddr
from html.parser import HTMLParser
from itertools import islice
from typing import Any, Literal, NamedTuple

from flufl.bounce import all_failures
from mailparser_reply import EmailReplyParser

from libs.common import beside
from services.followups.reading import consent_answer

MOST_BYTES = 10 * 1024 * 1024
MOST_PARTS = 1000
MOST_HEADERS, HEADER_LENGTH = 100, 4096
MOST_NAMED = 20
MOST_FILES = 50
TEXT_LENGTH, WHOLE_LENGTH, EXCERPT_LENGTH, LINE_LENGTH, STOP_LENGTH = 20_000, 40_000, 500, 300, 600
QUOTES_SECONDS = 1.0

Kind = Literal["hard", "soft", "complaint", "unsubscribe", "auto", "message"]
WORDS = beside.toml(__file__, "words.toml")
_HEADERS = frozenset(WORDS["headers"])
"""Others may be as many and as long as they like: nobody reads them."""
_TO = ("To", "Cc", "Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To")
_TOKEN = re.compile(r"[+]([bu][a-z2-7]{42})@", re.IGNORECASE)
_UUID = r"<([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})@"
_THREAD = re.compile(_UUID, re.IGNORECASE)
_RETURNED = re.compile(r"^[> \t]*Message-ID:\s{0,4}" + _UUID, re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
SOFT = ("4.", "5.2.3", "5.3.", "5.6.", "5.7.")
"""Too much, or it refuses what we sent, or us: that says nothing of the address (decision 68)."""
_CODE = re.compile(r"(?<!\d)55[0-4](?=[ -])")
_ROBOTS = re.compile(r"mail(?:er)?-?daemon|postmaster|double-bounce", re.IGNORECASE)
_COMPLAINTS = {"abuse", "fraud", "other", "opt-out", "opt-out-list", "miscategorized"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Read(NamedTuple):
    key: str
    """A hash of its Message-ID and body: the same mail has the same, by whichever way it comes."""
    kind: Kind
    sender: str
    """As it says. No proof."""
    subject: str
    text: str
    """What the person wrote, without what they quote."""
    stops: bool
    """They want no more mails, in their own words."""
    files: list[tuple[str, int]]
    """Names and sizes of attachments."""
    tokens: list[str]
    """They look like ours; `marks.py` checks them."""
    steps: list[str]
    """Ids of Message-IDs that may be ours."""
    status: str
    """Of a bounce: 5.1.1."""
    recipient: str = ""
    """As a provider reports it, whom we believe. A mail proves it by a token or a step."""


def read(raw: bytes) -> Read:
    """:raises ValueError: it has too many parts"""
    raw = raw[:MOST_BYTES]
    mail = _parsed(raw)
    leaves = list(_leaves(mail))
    kind, status = _kind(mail, leaves)
    bodies = [part for part in leaves if _is_text(part)]
    whole = _text(bodies)
    text, own = _own(whole) if kind == "message" else (whole[:EXCERPT_LENGTH], "")
    places = " ".join(_header(mail, name) for name in _TO)
    thread = f"{_header(mail, 'In-Reply-To')} {_header(mail, 'References')}"
    steps = list(_THREAD.finditer(thread))[::-1]  # the last one is what is answered
    if kind in {"hard", "soft", "complaint"}:  # the mail comes back with it, whole or in part
        returned = raw.decode("latin-1")
        places = f"{places} {' '.join(_some(_TOKEN, returned, 0))}"
        steps += islice(_RETURNED.finditer(returned), MOST_NAMED)
    tokens = [each.lower() for each in _some(_TOKEN, places, 1)]
    if kind == "message" and any(each.startswith("u") for each in tokens):
        kind = "unsubscribe"
    return Read(
        key=_key(mail, raw),
        kind=kind,
        sender=parseaddr(_header(mail, "From"))[1][:254],
        subject=_decoded(_header(mail, "Subject"))[:200],
        text=text[:TEXT_LENGTH],
        stops=kind == "message" and consent_answer.says_withdrawal(own[:STOP_LENGTH], "pl"),
        files=[(_name(part), _size(part)) for part in leaves if part not in bodies][:MOST_FILES],
        tokens=list(dict.fromkeys(tokens)),
        steps=list(dict.fromkeys(found[1].lower() for found in steps))[:MOST_NAMED],
        status=status,
    )


class _Part(Message):
    def set_raw(self, name: str, value: Any) -> None:
        if name.lower() in _HEADERS and len(self.keys()) < MOST_HEADERS:
            sent = value[:HEADER_LENGTH].encode("utf-8", "surrogateescape")
            super().set_raw(name, sent.decode("utf-8", "replace"))


def _parsed(raw: bytes) -> Message:
    parts = 0

    def part(**given: Any) -> _Part:
        nonlocal parts
        parts += 1
        if parts > MOST_PARTS:
            raise ValueError("too many parts")
        return _Part(**given)

    # compat32 decodes a header only when it is asked for; these are short by then.
    return BytesParser(part, policy=compat32).parsebytes(raw)


def _leaves(mail: Message) -> Iterator[Message]:
    """Yield the parts that hold content; a mail within the mail is one."""
    waiting = [mail]
    while waiting:
        part = waiting.pop()
        payload = part.get_payload()
        if isinstance(payload, list) and part.get_content_maintype() == "multipart":
            waiting += [each for each in payload[::-1] if isinstance(each, Message)]
        else:
            yield part


def _kind(mail: Message, leaves: list[Message]) -> tuple[Kind, str]:
    """Return what it is, and a bounce's status."""
    reports = {part.get_content_type(): part for part in reversed(leaves)}
    if (report := reports.get("message/feedback-report")) is not None:
        kinds = {_header(each, "Feedback-Type").strip().lower() for each in _blocks(report)}
        return ("complaint" if kinds & _COMPLAINTS else "auto"), ""
    text = _text([part for part in leaves if _is_text(part)])
    report = reports.get("message/delivery-status")
    if report is not None and (told := _delivery(report, text)) is not None:
        return told
    if str(mail.get_param("report-type", "")).lower() == "disposition-notification":
        return "auto", ""
    to = _TOKEN.search(_header(mail, "To"))
    if to is not None and to[1].lower().startswith("u"):  # a mail program may say Auto-Submitted
        return "message", ""
    sender = _header(mail, "Return-Path").strip() or _header(mail, "From")
    if sender == "<>" or _ROBOTS.search(f"{sender} {_header(mail, 'From')}"):
        return _heuristic(mail, text)
    return ("auto" if _is_automatic(mail) else "message"), ""


def _blocks(report: Message) -> list[Message]:
    payload = report.get_payload()
    if isinstance(payload, list):
        return [part for part in payload if isinstance(part, Message)][:MOST_HEADERS]
    return [_parsed(_bytes(report))]


def _delivery(report: Message, text: str) -> tuple[Kind, str] | None:
    """Read RFC 3464. A mail that is only late, or was delivered, does not bounce."""
    actions = {_header(each, "Action").strip().lower(): each for each in _blocks(report)}
    if (block := actions.get("failed")) is not None:
        told = _STATUS.search(_header(block, "Status"))
        status = told[1] if told else ""
        detail = _STATUS.search(_header(block, "Diagnostic-Code"))
        if detail and status in {"", "4.0.0", "5.0.0"}:
            status = detail[1]
        return _bounce(status, f"{_header(block, 'Diagnostic-Code')} {text}")
    return ("auto", "") if any(actions) else None


def _bounce(status: str, text: str) -> tuple[Kind, str]:
    is_full = status == "5.2.2" or (status in {"", "5.0.0", "5.2.0"} and _says(text, "full"))
    is_soft = is_full or status.startswith(SOFT)
    return ("soft" if is_soft else "hard"), status


def _heuristic(mail: Message, text: str) -> tuple[Kind, str]:
    """Read what a mail server wrote in its own words."""
    try:
        temporary, permanent = all_failures(mail)
    except Exception:  # noqa: BLE001 - its detectors raise whatever they trip over
        temporary, permanent = frozenset(), frozenset()
    status, code = _STATUS.search(text), _CODE.search(text)
    has_failed = permanent or _header(mail, "X-Failed-Recipients") or status or code
    if temporary and not permanent:
        return "soft", ""
    return _bounce(status[1] if status else "", text) if has_failed else ("auto", "")


def _is_automatic(mail: Message) -> bool:
    said = _header(mail, "Auto-Submitted").split(";")[0].strip().lower()
    precedence = _header(mail, "Precedence").strip().lower()
    marks = ("List-Id", "X-Autoreply", "X-Autorespond")
    subject = _decoded(_header(mail, "Subject")).strip().lower()
    return (
        said not in {"", "no"}
        or precedence in {"bulk", "junk", "list", "auto_reply"}
        or any(_header(mail, name) for name in marks)
        or subject.startswith(tuple(WORDS["automatic"]))
    )


def _says(text: str, what: str) -> bool:
    said = " ".join(text[:WHOLE_LENGTH].lower().split())
    return any(words in said for words in WORDS[what])


def _key(mail: Message, raw: bytes) -> str:
    plain = raw.replace(b"\r\n", b"\n")
    body = plain.partition(b"\n\n")[2].rstrip()
    name = _header(mail, "Message-ID") or f"{_header(mail, 'From')}\n{_header(mail, 'Date')}"
    return hashlib.sha256(name.encode("utf-8", "replace") + b"\n" + body).hexdigest()


def _is_text(part: Message) -> bool:
    is_file = part.get_content_disposition() == "attachment" or part.get_filename() is not None
    return part.get_content_type() in {"text/plain", "text/html"} and not is_file


def _text(parts: list[Message]) -> str:
    """Return the first plain text that says something, else what the HTML says."""
    for wanted in ("text/plain", "text/html"):
        for part in parts:
            if part.get_content_type() == wanted:
                said = _content(part)[: WHOLE_LENGTH * (1 if wanted == "text/plain" else 10)]
                said = said if wanted == "text/plain" else _Plain.of(said)
                if said.strip():
                    return said[:WHOLE_LENGTH]
    return ""


def _content(part: Message) -> str:
    content = _bytes(part)
    try:
        text = content.decode(str(part.get_content_charset() or "utf-8"), "replace")
    except (LookupError, ValueError):
        text = content.decode("utf-8", "replace")
    return _clean(text.replace("\r\n", "\n"))


def _bytes(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


class _Plain(HTMLParser):
    """The words of an HTML part, up to what it quotes."""

    _ENDS = ("gmail_quote", "moz-cite-prefix", "divRplyFwdMsg", "appendonsend")
    _HIDDEN = ("script", "style", "head", "title")

    def __init__(self) -> None:
        super().__init__()
        self._words: list[str] = []
        self._hidden = 0
        self._over = False

    @classmethod
    def of(cls, html: str) -> str:
        plain = cls()
        plain.feed(html)
        return re.sub(r"\n{3,}", "\n\n", "".join(plain._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = " ".join(value or "" for name, value in attrs if name in {"class", "id"})
        self._over |= tag == "blockquote" or any(each in named for each in self._ENDS)
        self._hidden += tag in self._HIDDEN
        if tag in {"br", "p", "div", "li", "tr"}:
            self.handle_data("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._HIDDEN and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._over and not self._hidden:
            self._words.append(data)


def _own(whole: str) -> tuple[str, str]:
    """Return what the person wrote themselves, and that without their signature."""
    text = _unquoted(whole)
    try:
        with _within(QUOTES_SECONDS):  # its patterns are not linear
            first = EmailReplyParser(languages=["pl", "en", "de"]).read(text).replies[0]
        said, own = first.content.strip(), first.body.strip()
    except (TimeoutError, IndexError, RecursionError):
        said = own = text.strip()
    return (said, own) if said else (text.strip(), "")


def _unquoted(whole: str) -> str:
    lines = whole.split("\n")
    ends = tuple(WORDS["quotes"])
    for number, line in enumerate(lines):
        if len(line) <= LINE_LENGTH and line.strip(" \t:-_>*").lower().endswith(ends):
            rest = lines[number + 1 :]
            if not any(each.startswith(">") for each in rest):
                lines = lines[:number]  # as Outlook and web mail do it: all that follows
            else:
                lines[number] = ""
            break
    return "\n".join(line for line in lines if not line.startswith(">"))


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _late(*_: object) -> None:
    raise TimeoutError


def _header(mail: Message, name: str) -> str:
    value = mail.get(name)
    return "" if value is None else _clean(str(value).replace("\n", " ").replace("\r", " "))


def _decoded(value: str) -> str:
    try:
        return _clean(str(make_header(decode_header(value))))
    except (LookupError, ValueError):
        return value


def _clean(text: str) -> str:
    return _CONTROL.sub(" ", text).encode("utf-8", "replace").decode()


def _name(part: Message) -> str:
    return _decoded(_clean(part.get_filename() or part.get_content_type()))[:200]


def _size(part: Message) -> int:
    if isinstance(part.get_payload(), list):
        return 0
    return len(_bytes(part))


def _some(pattern: re.Pattern[str], text: str, group: int) -> list[str]:
    return [found[group] for found in islice(pattern.finditer(text), MOST_NAMED)]


def main() -> None:
    """`reader.py MEMORY SECONDS`: at most so many bytes, and of CPU time."""
    memory, seconds = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    json.dump(read(sys.stdin.buffer.read(MOST_BYTES))._asdict(), sys.stdout)


if __name__ == "__main__":
    main()
