"""Replies to a press of a button: a text that only its person sees, or the message anew."""

import json
from collections.abc import Mapping
from typing import Any

from yarl import URL

from libs.common.process import logs
from services.alerts.channels.network import Network, Networks
from services.alerts.channels.post import Poster
from services.alerts.channels.slack import SlackTarget
from services.alerts.channels.templates import escape_slack

log = logs.get_logger(__name__)

HOOKS = URL("https://hooks.slack.com")
SECONDS = 0.8
"""Slack waits 3 s for the response to a press; the answer may have taken 2 of them."""


def private(text: str) -> dict[str, Any]:
    """Return a message that only the person who pressed sees."""
    return {"response_type": "ephemeral", "replace_original": False, "text": escape_slack(text)}


def replacing(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message that takes the place of the one with the button."""
    return {"replace_original": True, **message}


async def reply(
    target: SlackTarget, url: str, message: Mapping[str, Any], networks: Networks
) -> None:
    """Post a message to a press's `response_url`; once, because the person can press again.

    :param url: nothing is sent unless it is at Slack, or where the target's API is
    """
    if not _is_slacks(target, url):
        log.warning("slack.foreign_response_url")
        return
    network = Network("slack replies", networks, 1)
    poster = Poster(target.model_copy(update={"timeout": SECONDS}), url, network)
    try:
        sent = await poster.post(json.dumps(message).encode(), {})
    finally:
        await poster.close()
        await network.close()
    log.info("slack.replied", outcome=sent.outcome.kind, reason=sent.outcome.reason)


def _is_slacks(target: SlackTarget, url: str) -> bool:
    try:
        return URL(url).origin() in {HOOKS, URL(target.api).origin()}
    except ValueError:
        return False
