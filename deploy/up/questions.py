"""`ostoja setup`: seven questions, whose answers are tried at once. A file that was edited stays.

Nothing is written before the last answer. All new files are complete in one folder before its
renaming decides that they count; `finish` puts them into place, also after a kill.
"""

import getpass
import json
import os
import re
import shutil
import smtplib
import socket
import ssl
import sys
import tempfile
import unicodedata
import urllib.request
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from deploy.up.environment import (
    EXAMPLE_CONFIG,
    PLAIN,
    ROOT,
    SECRETS,
    defaults,
    filled,
    load,
    parse,
    put,
)
from deploy.up.process import ServerError
from libs.common import beside

ASKED = beside.toml(__file__)
TEXTS: dict[str, str] = ASKED["texts"]
PATIENCE = 15.0
MONDAY = date(2026, 1, 5)  # from here on each week has its person
Answers = dict[str, str]


def ask(root: Path) -> Answers:
    """Return .env's settings and the other answers; an empty line keeps what is in force."""
    answers = defaults() | parse((root / ".env").read_text(encoding="utf-8"))
    for question in ASKED["question"]:
        if question["file"] and not _is_example(root, question["file"]):
            print(TEXTS["yours"].format(**question))
            continue
        print(f"\n{question['title']}")
        while True:
            for name, text in question["ask"].items():
                known = answers.get(name, "")
                known = "" if known.endswith("@example.com") else known
                shown = f" [{'set' if name in SECRETS else known}]" if known else ""
                given = (getpass.getpass if name in SECRETS else input)(f"  {text}{shown}: ")
                answers[name] = "" if given.strip() == "-" else given.strip() or known
            try:
                _TRIED[question["name"]](answers)
                print(TEXTS["tried"])
            except (OSError, ValueError) as error:
                print(TEXTS["failed"].format(why=error))
                if input(TEXTS["keep"]).strip() != "k":
                    continue
            break
    return answers


def _is_example(root: Path, name: str) -> bool:
    return (root / "config" / name).read_bytes() == (EXAMPLE_CONFIG / name).read_bytes()


def _company(answers: Answers) -> None:
    from libs.domain.company import Company  # needs the virtual environment

    given = {name: answers[name] for name in Company.model_fields if name in answers}
    Company.model_validate({**given, "privacy_url": "https://www.example.com"})
    socket.getaddrinfo(answers["contact"].rpartition("@")[2], None)


def _domain(answers: Answers) -> None:
    host = urlsplit(answers["PUBLIC_BASE_URL"]).hostname or ""
    if not answers["PUBLIC_BASE_URL"].startswith("https://"):
        raise ValueError(TEXTS["https"])
    socket.getaddrinfo(host, 443)


def _slack(answers: Answers) -> None:
    if answers["SLACK_WEBHOOK_URL"]:
        body = json.dumps({"text": TEXTS["test"]}).encode()
        if (said := _get(answers["SLACK_WEBHOOK_URL"], body)) != b"ok":
            raise ValueError(said[:100])


def _mail(answers: Answers, *to: str) -> None:
    there = answers["SMTP_HOST"], int(answers["SMTP_PORT"])
    tls = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(*there, timeout=PATIENCE, context=tls)
        if answers["SMTP_TLS"] == "tls"
        else smtplib.SMTP(*there, timeout=PATIENCE)
    ) as relay:
        if answers["SMTP_TLS"] == "starttls":
            relay.starttls(context=tls)
        if answers["SMTP_USERNAME"]:
            relay.login(answers["SMTP_USERNAME"], answers["SMTP_PASSWORD"])
        for address in to or (answers["STAFF_EMAIL"],):
            mail = EmailMessage()
            mail["From"], mail["To"], mail["Subject"] = answers["MAIL_FROM"], address, "Ostoja"
            mail.set_content(TEXTS["test"])
            relay.send_message(mail)


def _backup(answers: Answers) -> None:
    if folder := answers["BACKUP_DIR"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"Ostoja")
        if Path(folder).stat().st_dev == EXAMPLE_CONFIG.stat().st_dev:
            raise ValueError(TEXTS["same_disk"])


def _get(url: str, body: bytes | None = None) -> bytes:
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        said: bytes = answer.read(1000)
        return said


_toml = partial(json.dumps, ensure_ascii=False)
_TRIED: dict[str, Callable[[Answers], object]] = {
    "company": _company, "domain": _domain, "slack": _slack, "mail": _mail, "backup": _backup,
    "on_call": lambda answers: _mail(
        answers, *filter(None, [each["email"] for each in _people(answers)])
    ),
    "privacy": lambda answers: _get(answers["privacy_url"]),
}  # fmt: skip
_PERSON = re.compile(r"(?P<name>[^+@]+?)(?: (?P<phone>\+[\d ]+?))?(?: (?P<email>\S+@\S+))?")


def _people(answers: Answers) -> Iterator[dict[str, str]]:
    """Read `Jan Kos +48600700801 jan@firma.pl, …`; the first one is the manager, too."""
    for number, given in enumerate(answers["people"].split(",")):
        found = _PERSON.fullmatch(" ".join(given.split()))
        if not found or not (found["phone"] or found["email"]):
            raise ValueError(TEXTS["person"].format(given=given))
        first = found["name"].partition(" ")[0].lower().replace("ł", "l")
        key = re.sub("[^a-z]", "", unicodedata.normalize("NFKD", first)) if number else "manager"
        yield {"key": key, **found.groupdict("")}


def _files(answers: Answers, root: Path) -> Iterator[tuple[str, str]]:
    """Yield each file that is still the example's, with the answers in it."""
    site = f"https://{urlsplit(answers.get('privacy_url', '')).netloc}"
    told = {**answers, "site": site}
    said = {old: Template(new).safe_substitute(told) for old, new in ASKED["said"].items()}
    examples = re.compile("|".join(sorted(map(re.escape, said), key=len, reverse=True)))
    for name in ("company.toml", "followups.toml", "forms.toml"):
        if _is_example(root, name) and _is_example(root, "company.toml"):
            text = (root / "config" / name).read_text(encoding="utf-8")
            text = examples.sub(lambda found: _toml(said[found[0]])[1:-1], text)
            yield name, re.sub(ASKED["left_out"], "", text)
    if not _is_example(root, "alerts.toml"):
        return
    text = (root / "config" / "alerts.toml").read_text(encoding="utf-8")
    unused = [f"{name} = false\n" for name, url in ASKED["targets"].items() if not answers[url]]
    text = text.replace("# [targets]\n# monday = false\n", "".join(["[targets]\n", *unused]))
    text, shifts, found = text[: text.index("# Examples:")], "", list(_people(answers))
    for week, each in enumerate(found):
        begins, ends = (f"{MONDAY + timedelta(weeks=week + n):%Y%m%d}" for n in (0, 1))
        when = {"begins": begins, "ends": ends, "every": len(found)}
        shifts += Template(ASKED["shift"]).substitute(each, **when)
        text += f"[people.{each.pop('key')}]\n"
        text += "".join(f"{key} = {_toml(what)}\n" for key, what in each.items() if what)
    yield "alerts.toml", text
    yield "rota-sales.ics", Template(ASKED["rota"]).substitute(shifts=shifts)


def write(answers: Answers, root: Path) -> None:
    """Write every file, or none.

    :raises ServerError: names what is wrong; nothing was written
    """
    from deploy.check import faults  # needs the virtual environment

    asked = [name for question in ASKED["question"] for name in question["ask"] if name.isupper()]
    given = {name: answers[name] for name in asked}
    quoted = {name: v if PLAIN.fullmatch(v) else f"'{v}'" for name, v in given.items()}
    fresh = quoted | ASKED["no_trial"]
    stage = root / ".local" / "setup.new"
    shutil.rmtree(stage, ignore_errors=True)
    shutil.copytree(root / "config", stage / "config")
    put(stage / ".env", filled((root / ".env").read_text(encoding="utf-8"), fresh).encode())
    for name, text in _files(answers, root):
        put(stage / "config" / name, text.encode())
    values = load(stage / ".env")
    values["CERTS_DIR"] = str(root / values["CERTS_DIR"]) if values["CERTS_DIR"] else ""
    if found := faults(values, stage / ".env"):
        raise ServerError("\n  ".join(["nothing was written, because of:", *found]))
    os.sync()
    stage.rename(_ready(root))
    finish(root)
    print(TEXTS["written"])


def _ready(root: Path) -> Path:
    return root / ".local" / "setup.ready"


def finish(root: Path) -> None:
    """Put the files into place that `write` has finished."""
    for file in _ready(root).rglob("*"):
        if file.is_file():
            put(root / file.relative_to(_ready(root)), file.read_bytes())
    shutil.rmtree(_ready(root), ignore_errors=True)


if __name__ == "__main__":
    try:
        finish(ROOT)
        write(ask(ROOT), ROOT)
    except (EOFError, KeyboardInterrupt):
        sys.exit("\nnothing was written: no answer came")
    except FileNotFoundError as error:
        sys.exit(f"{error.filename} is missing: run `make env` first")
    except ServerError as fault:
        sys.exit(str(fault))
