"""The deployment: check it, set it up, back it up, restore it."""

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from email import message_from_bytes
from email.utils import parseaddr
from typing import Any, BinaryIO

import typer

from ostoja import where
from ostoja.api import Api
from ostoja.commands import table
from ostoja.failure import Exit, Failure
from ostoja.show import name, prose
from ostoja.where import Session

SERVICES = ("alerts", "consent", "followups", "console")
LOOK = "make status, make logs SERVICE={0}; or docker compose ps, docker compose logs {0}"
COVERED = ("from", "list-unsubscribe", "list-unsubscribe-post")
SIGN = "let the relay sign From, List-Unsubscribe and List-Unsubscribe-Post (h= of DKIM-Signature)"
RESTART = "make up, or docker compose up -d"


def add_to(app: typer.Typer) -> None:
    config = typer.Typer(no_args_is_help=True, help="What .env and config/ say.")
    acts: dict[str, Any] = {
        each.__name__: each for each in (doctor, check, setup, show, backup, verify, restore)
    }
    table.add(app, "Deployment", "deployment", "backup", do=acts, config=config)


def check(session: Session) -> None:
    found = where.checkout_lines("deploy.check")
    for fault in found:
        session.screen.answer(fault, fault["fault"])
    if found:
        raise Failure(Exit.NOT_OK, "correct this before you start or stop anything")
    session.screen.answer({"faults": 0}, "every service would start with them")


def setup(_: Session) -> None:
    where.run_here("deploy.up.questions")


def show(_: Session, *, defaults: bool) -> None:
    own = sorted((where.env_file().parent / "config").glob("*.toml"))
    for file in where.shipped() if defaults else own:
        typer.echo(f"# ===== {file}\n{file.read_text(encoding='utf-8')}")


def doctor(session: Session, *, mail: BinaryIO | None, live: bool) -> None:
    findings = [*_here(live=live), *of_services(session)]
    if mail:
        said, do = check_received(mail.read())
        findings = [each for each in findings if each["part"] != "DKIM"]
        findings.append(_finding("DKIM", "wrong" if do else "ok", said, do))
    seen = {tuple(each.values()): each for each in findings}  # several may find the same
    findings = sorted(
        seen.values(), key=lambda each: ("ok", "unknown", "wrong").index(each["status"])
    )
    if session.screen.as_json:
        for each in findings:
            session.screen.json(each)
    else:  # problems come last
        session.screen.table(
            [name("Part"), name("Result"), prose("Found, and how to correct it")],
            [
                (
                    each["part"],
                    each["status"],
                    "\n→ ".join(filter(None, (each["found"], each["do"]))),
                )
                for each in findings
            ],
        )
    if wrong := sum(each["status"] == "wrong" for each in findings):
        raise Failure(Exit.NOT_OK, f"{wrong} problems" if wrong > 1 else "1 problem")


def _finding(part: str, status: str, found: str, do: str = "") -> dict[str, str]:
    return {"part": part, "status": status, "found": found, "do": do}


def _here(*, live: bool) -> list[dict[str, str]]:
    if not where.has_deployment():
        return [
            _finding(".env", "unknown", "not checked, nor RabbitMQ's accounts", where.ELSEWHERE)
        ]
    return where.checkout_lines("deploy.inspection", *(["--live"] if live else []))


def of_services(session: Session) -> Iterator[dict[str, str]]:
    """Ask the gateway what each service finds; if it is away, ask each service's own port here."""
    api = session.api
    try:
        api.get("/api/health", key=None)
    except Failure as failure:
        yield _finding("gateway", "wrong", f"no answer: {failure}", LOOK.format("gateway"))
        for service in SERVICES if where.has_deployment() else ():
            yield from _at_its_port(service)
        return
    yield _finding("gateway", "ok", f"answers at {api.url}")
    try:
        health = api.get("/api/health/deep", findings="yes")
    except Failure as failure:
        if not str(failure).startswith("refused"):
            yield _finding("gateway", "unknown", f"cannot say what the services find: {failure}")
            return
        said = "it does not accept the admin key used here"
        yield _finding(
            "gateway", "wrong", said, f"{RESTART}: it runs with the .env of its last start"
        )
        return
    yield from health["findings"]
    reported = {each["part"].lower() for each in health["findings"] if each["status"] == "wrong"}
    for part, component in health["components"].items():
        if part not in reported:
            yield _component(part, component)


def _at_its_port(service: str) -> Iterator[dict[str, str]]:
    try:
        found = _service_api(service).get("/health/deep", key="X-Internal-Key", findings="yes")
    except (Failure, OSError) as failure:
        yield _finding(service, "wrong", f"no answer: {failure}", LOOK.format(service))
    else:
        yield _finding(service, "ok", "answers at its own port")
        yield from found["findings"]


def _service_api(service: str) -> Api:
    values, prefix, tls = where.settings(), service.upper(), None
    certs = values.get("CERTS_DIR")
    if certs:
        folder = where.env_file().parent / certs / "ostoja"
        tls = ssl.create_default_context(cafile=folder / "ca.crt")
        if (folder / "tls.crt").exists():
            tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    port = values.get(f"{prefix}_PORT")
    url = values.get(f"{prefix}_URL") or f"http{'s' if certs else ''}://127.0.0.1:{port}"
    keys = {"X-Internal-Key": values.get(f"{prefix}_INTERNAL_KEY", "")}
    return Api(url, keys, where.user(), tls)


def _component(part: str, component: dict[str, Any]) -> dict[str, str]:
    if component["status"] == "healthy":
        return _finding(part, "ok", "the gateway finds it healthy")
    shown, parts = f"the gateway finds it {component['status']}", component.get("components")
    if parts is None:
        away = "no answer: " if part in SERVICES else ""
        return _finding(part, "wrong", f"{away}{shown}: {component['detail']}", LOOK.format(part))
    failing = {each: found for each, found in parts.items() if found["status"] != "healthy"}
    if not failing:
        do = "ostoja breakers, ostoja stats"
        return _finding(part, "wrong", f"{shown}: a target is unhealthy", do)
    said = ", ".join(
        found.get("detail") or f"{each} is unavailable" for each, found in failing.items()
    )
    return _finding(part, "wrong", f"{shown}: {said}", LOOK.format(part))


def check_received(received: bytes) -> tuple[str, str]:
    """Return what is wrong with a mail as it arrived, and how to correct it, if anything.

    Mail programs show "unsubscribe" only if the relay's DKIM signature covers both List-Unsubscribe
    headers (RFC 8058, section 4). The relay signs, so only a received mail has the signature. This
    checks what it covers; the mailbox's own Authentication-Results header says whether it verifies.
    """
    mail = message_from_bytes(received)
    if missing := [name for name in COVERED if name not in mail]:
        return f"the mail has no {', '.join(missing)}", "use an unmodified follow-up"
    signatures = [_tags(str(each)) for each in mail.get_all("DKIM-Signature", [])]
    if not signatures:
        return "the mail has no DKIM-Signature", SIGN
    domain = parseaddr(str(mail["From"]))[1].rpartition("@")[2].lower()
    aligned = [tags for tags in signatures if _aligned(tags.get("d", "").lower(), domain)]
    if not aligned:
        signers = ", ".join(sorted({tags.get("d", "unknown") for tags in signatures}))
        return f"signed by {signers}, not by {domain}", f"have the relay sign for {domain}"
    if uncovered := min((_uncovered(tags) for tags in aligned), key=len):
        return f"the signature does not cover {', '.join(uncovered)}", SIGN
    return f"the signature of {domain} covers both headers", ""


def _tags(signature: str) -> dict[str, str]:
    pairs = (tag.partition("=") for tag in re.sub(r"\s+", "", signature).split(";"))
    return {name: value for name, _, value in pairs if name}


def _aligned(signer: str, domain: str) -> bool:
    """Return whether it is the sender's domain, or a parent or subdomain of it (DMARC, relaxed)."""
    same = signer == domain
    return bool(signer) and (same or domain.endswith(f".{signer}") or signer.endswith(f".{domain}"))


def _uncovered(tags: Mapping[str, str]) -> list[str]:
    covered = tags.get("h", "").lower().split(":")
    return [name for name in COVERED if name not in covered]


def _do(command: str, **given: Any) -> dict[str, Any]:
    (answer,) = where.checkout_lines("deploy.backup", command, json.dumps(given))
    return answer


def backup(session: Session, *, full: bool) -> None:
    made = _do("backup", full=full)
    session.screen.answer(
        made,
        f"backup {made['backup']}: {made['bytes']} bytes, {made['stored_bytes']} stored now",
    )


def verify(session: Session) -> None:
    found = _do("verify")
    session.screen.answer(
        found, f"ok: backup {found['backup']}, restored in {found['seconds']} s; {_rows(found)}"
    )


def restore(session: Session, *, to: str | None, without_records: bool, yes: bool) -> None:
    given = {"at": to, "without_records": without_records}
    for line in _do("plan", **given)["lines"]:
        session.screen.note(f"- {line}")
    if not yes:
        typer.confirm("Restore?", abort=True, err=True)
    found = _do("restore", **given)
    session.screen.answer(found, f"restored in {found['seconds']} s; {_rows(found)}")
    if not found["ok"]:
        raise Failure(Exit.NOT_OK, "the trail or the ledger is not whole: see --json")


def _rows(found: dict[str, Any]) -> str:
    trail, ledger = found["trail"]["rows"], found["ledger"]["accepted"]
    return f"{trail} rows of the trail, {ledger} of the ledger"
