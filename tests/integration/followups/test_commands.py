"""The commands `preview` and `send-test`."""

import base64
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from services.followups import commands
from services.followups.settings import FollowupsSettings
from services.followups.store import tables
from tests.integration.followups.conftest import World
from tests.support.shipped import EXAMPLE


def settings(**more: Any) -> FollowupsSettings:
    given: dict[str, Any] = {
        "http_port": 0, "metrics_port": 0, "internal_api_key": "k" * 16, "amqp_url": "unused",
        "database_url": "unused", "token_keys": f"k1:{base64.b64encode(bytes(32)).decode()}",
        "public_base_url": "https://chat.example.com",
        "followups_config": EXAMPLE / "followups.toml", "company_config": EXAMPLE / "company.toml",
    }  # fmt: skip
    return FollowupsSettings(**given | more)


def test_preview_writes_each_mail_as_html_and_eml(tmp_path: Path) -> None:
    names = {path.name for path in commands.preview(settings(), tmp_path / "new")}
    assert names >= {"default-1.pl.much.html", "default-2.en.little.eml"}
    for path in (tmp_path / "new").glob("*.eml"):
        mail = BytesParser(policy=policy.default).parsebytes(path.read_bytes())
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        assert [part.get_content_type() for part in mail.iter_parts()] == [
            "text/plain",
            "text/html",
        ]


async def test_send_test_mails_the_given_address_without_a_permit(world: World) -> None:
    url = world.engine.url.render_as_string(hide_password=False)
    sent = await commands.send_test(settings(database_url=url), "Staff@Example.com")
    bodies = [row["body"] for row in await world.rows(tables.outbox_table)]
    assert len(bodies) == sent == 4
    for body in bodies:
        assert (body["event_type"], body["once"]) == ("email", None)
        assert body["payload"]["to"] == "staff@example.com"
        assert body["payload"]["subject"].startswith("[default-")
