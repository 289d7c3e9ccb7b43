"""A Telegram target: what its bot sends to the sandbox, and what each response means."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from services.alerts.channels import opened, telegram
from services.alerts.channels.post import Response
from services.alerts.channels.responses import classify
from services.alerts.channels.telegram import TelegramTarget
from services.alerts.config.targets import Config
from services.alerts.rules.delivery import MAX_PAUSE_SECONDS, Kind, Outcome, Reason
from tests.support.sandbox import Sandbox
from tests.support.targets import LOOPBACK, STATUSES, TEMPLATES, job

TOKEN = "123456:token-of-the-bot"


async def sent(
    sandbox: Sandbox, token: str = TOKEN, chat: str = "-100200300", **payload: Any
) -> Outcome:
    target = TelegramTarget.model_construct(
        channel="telegram", url=f"{sandbox.url}/telegram/", token=SecretStr(token), chat=chat
    )
    async with opened("ops", target, TEMPLATES, LOOPBACK) as channel:
        return await channel.send(job(**payload))


async def test_an_alert_is_one_plain_message_in_the_chat(sandbox: Sandbox) -> None:
    outcome = await sent(sandbox, text="*disk* <b>full</b> " + "ż" * 5000)
    assert (outcome.kind, outcome.reason) == (Kind.DELIVERED, Reason.OK)
    [received] = await sandbox.received("telegram")
    assert received["body"] == {
        "chat_id": "-100200300",
        "text": ("*disk* <b>full</b> " + "ż" * 5000)[:4096],
        "link_preview_options": {"is_disabled": True},
    }
    assert TOKEN not in json.dumps(received["headers"])


@pytest.mark.parametrize(
    "changes",
    [{"token": "no-token"}, {"chat": "@nobody"}],
)
async def test_a_wrong_token_or_chat_is_the_target_s_fault(
    sandbox: Sandbox, changes: dict[str, str]
) -> None:
    outcome = await sent(sandbox, **changes)
    assert (outcome.kind, outcome.reason) == (Kind.HELD, Reason.GONE)
    assert not await sandbox.received("telegram")


def answered(status: int, **body: Any) -> Outcome:
    raw = json.dumps({"ok": status == 200, "error_code": status} | body).encode()
    return telegram.read(Response(raw, classify(status, "")))


@pytest.mark.parametrize(("status", "kind", "reason"), STATUSES)
def test_a_status_means_what_it_means_elsewhere(status: int, kind: Kind, reason: Reason) -> None:
    outcome = answered(status, ok=True)
    expected = Reason.BAD_PAYLOAD if status == 400 else reason
    assert (outcome.kind, outcome.reason) == (kind, expected)


@pytest.mark.parametrize(
    ("wait", "seconds"), [(7, 7.0), (10**9, MAX_PAUSE_SECONDS), ("7", None), (-1, None)]
)
def test_how_long_to_wait_is_in_the_body_and_bounded(wait: Any, seconds: float | None) -> None:
    outcome = answered(429, parameters={"retry_after": wait})
    assert (outcome.kind, outcome.retry_after) == (Kind.LATER, seconds)


@pytest.mark.parametrize(
    ("description", "kind", "reason"),
    [
        ("Bad Request: chat not found", Kind.HELD, Reason.GONE),
        ("Bad Request: group chat was upgraded to a supergroup chat", Kind.HELD, Reason.GONE),
        ("Bad Request: message text is empty", Kind.NEVER, Reason.BAD_PAYLOAD),
        (None, Kind.NEVER, Reason.BAD_PAYLOAD),
    ],
)
def test_a_bad_request_is_the_chat_s_or_the_alert_s(
    description: str | None, kind: Kind, reason: Reason
) -> None:
    outcome = answered(400, description=description)
    assert (outcome.kind, outcome.reason) == (kind, reason)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"ok":1}', b"[" * 60_000])
def test_a_200_without_ok_is_a_failure(body: bytes) -> None:
    outcome = telegram.read(Response(body, classify(200, "")))
    assert (outcome.kind, outcome.reason) == (Kind.FAILED, Reason.BAD_ANSWER)


def test_its_section_is_one_of_alerts_toml() -> None:
    section = {"channel": "telegram", "token": "plain", "chat": "1"}
    with pytest.raises(ValueError, match="give a secret as"):
        Config.model_validate({"routes": {}, "targets": {"ops": section}})
    assert TelegramTarget.read_by_people
    assert not TelegramTarget.once
