"""`python -m services.followups preview FOLDER | send-test ADDRESS`."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

from libs.common.database import postgres
from libs.common.messaging import outbox
from libs.common.messaging.broker import message
from libs.domain.email_address import normalise
from libs.domain.signed_links import Tokens
from services.followups import config, messages
from services.followups.mails.compose import Mails
from services.followups.settings import FollowupsSettings
from services.followups.topology import ALERTS, ALERTS_INTAKE


def preview(settings: FollowupsSettings, folder: Path) -> Iterator[Path]:
    """Write each mail of each sequence, as an HTML page and as a complete .eml message.

    :returns: the files; nothing is sent
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, *_, mail in checked(settings).samples("anna@example.com"):
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


def checked(settings: FollowupsSettings) -> Mails:
    """:raises SystemExit: names the fault in the configuration or a template"""
    configured = config.load(settings.followups_config, settings.company_config)
    tokens = Tokens(settings.token_keys.get_secret_value())
    return Mails(configured, tokens, settings.public_base_url)


async def send_test(settings: FollowupsSettings, address: str) -> int:
    """Send the mails of the `much` sample to a colleague.

    They go through the outbox like any alert by mail, and need no permit.

    :returns: how many mails were queued
    :raises MalformedEmail:
    """
    to = normalise(address)
    sent = []
    for name, *_, mail in checked(settings).samples(to):
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
