"""Checks of the whole deployment: each service says what it finds; this says what they cannot."""

import ssl
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ostoja import received_mail, where
from ostoja.api import Api
from ostoja.failure import Exit, Failure
from ostoja.show import name, prose
from ostoja.where import Session

SERVICES = ("alerts", "consent", "followups", "console")
LOOK = "make status, make logs SERVICE={0}; or docker compose ps, docker compose logs {0}"
RESTART = "make up, or docker compose up -d"


def add_to(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Deployment")(doctor)
    app.command("check", rich_help_panel="Deployment")(check)


def check(context: typer.Context) -> None:
    """Check .env and config/*.toml before a restart: would every service start with them?

    It connects to no server and changes nothing.
    """
    session: Session = context.obj
    found = where.checkout_lines("deploy.check")
    for fault in found:
        session.screen.answer(fault, fault["fault"])
    if found:
        raise Failure(Exit.NOT_OK, "correct this before you start or stop anything")
    session.screen.answer({"faults": 0}, "every service would start with them")


def doctor(
    context: typer.Context,
    *,
    mail: Annotated[
        typer.FileBinaryRead | None,
        typer.Option(
            help="A follow-up as it arrived in a mailbox (.eml; - is standard input): checks that "
            "the relay's DKIM signature covers what one-click unsubscribe needs."
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Check a trial, too, for what is left to do before going live."
        ),
    ] = False,
) -> None:
    """Check a deployment, and say how to correct each problem.

    Run it where the deployment runs: only there can it see .env and RabbitMQ's accounts.
    """
    session: Session = context.obj
    findings = [*_here(live=live), *of_services(session)]
    if mail:
        said, do = received_mail.check(mail.read())
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
