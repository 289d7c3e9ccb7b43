"""`python -m services.followups preview FOLDER | send-test ADDRESS`."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from libs.common.database import postgres
from libs.common.messaging import outbox
from libs.common.messaging.broker import message
from libs.domain.email_address import normalise
from libs.domain.signed_links import Tokens
from services.followups import config, messages
from services.followups.config import LANGUAGES, Config
from services.followups.mails.compose import SAMPLES, Mails, Recipient
from services.followups.settings import FollowupsSettings
from services.followups.topology import ALERTS, ALERTS_INTAKE


def preview(settings: FollowupsSettings, folder: Path) -> Iterator[Path]:
    """Write each mail of each sequence, as an HTML page and as a complete .eml message.

    :returns: the files; nothing is sent
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, mail in rendered(settings, "anna@example.com"):
        page = folder / f"{name}.html"
        page.write_text(mail["html"], encoding="utf-8")
        yield page
        whole = EmailMessage()
        for header in ("Subject", "To"):
            whole[header] = mail[header.lower()]
        for header, value in mail["headers"].items():
            whole[header] = value
        whole.set_content(mail["text"])
        whole.add_alternative(mail["html"], subtype="html")
        complete = folder / f"{name}.eml"
        complete.write_bytes(whole.as_bytes())
        yield complete


def rendered(settings: FollowupsSettings, address: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each step in each language, for leads with little, some and much known about them."""
    configured, mails = checked(settings)
    now = datetime.now(UTC)
    for sequence, steps in configured.sequences.items():
        for number, step in enumerate(steps, 1):
            for language in LANGUAGES:
                for known, facts in SAMPLES.items():
                    to = Recipient(uuid.uuid4(), address, language, facts)
                    yield f"{sequence}-{number}.{language}.{known}", mails.render(step, to, now)


def checked(settings: FollowupsSettings) -> tuple[Config, Mails]:
    """:raises SystemExit: names the fault in the configuration or a template"""
    configured = config.load(settings.followups_config, settings.company_config)
    tokens = Tokens(settings.token_keys.get_secret_value())
    return configured, Mails(configured, tokens, settings.public_base_url)


async def send_test(settings: FollowupsSettings, address: str) -> int:
    """Send the mails of the `much` sample to a colleague.

    They go through the outbox like any alert by mail, and need no permit.

    :returns: how many mails were queued
    :raises MalformedEmail:
    """
    to = normalise(address)
    sent = []
    for name, mail in rendered(settings, to):
        if name.endswith("much"):
            test = mail | {"subject": f"[{name}] {mail['subject']}"}
            new, now = uuid.uuid4(), datetime.now(UTC)
            body = messages.alert_accepted(new, new, new, to, test, now, None)
            plain = body | {"event_type": "email", "target": None, "once": None}
            sent.append((ALERTS.name, ALERTS_INTAKE, message(messages.ALERT_ACCEPTED, plain)))
    url = settings.database_url.get_secret_value()
    async with (
        postgres.connect(url, application_name="followups send-test", pool_size=1) as engine,
        engine.begin() as tx,
    ):
        await outbox.add_all(tx, sent)
    return len(sent)
