"""An OpenAI-compatible model puts the dialogue's reply into better words, where one is configured.

Facts, score, the next question and above all consent stay with the dialogue: the model is given its
reply and says the same better, or not at all. It is never asked in a turn that asks for consent or
hears the answer, for the wording that is agreed to is the configured one. A model that is away,
slow, refuses or answers nonsense costs its time-out once, is then left alone for a moment, and the
dialogue's own reply stands. E-mail addresses and phone numbers do not leave in what it is shown.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp

from libs.common import logs
from services.followups import facts, metrics

REMEMBERED = 20
"""So many messages of a conversation are shown to it."""
REST_SECONDS = 30.0
MAX_ANSWER = 256 * 1024
MAX_REPLY = 2000

log = logs.get_logger(__name__)


class ChatModel:
    def __init__(
        self, session: aiohttp.ClientSession, url: str, name: str, instructions: str
    ) -> None:
        self._session = session
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._name = name
        self._instructions = instructions
        self._rests_until = 0.0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, key: str, name: str, instructions: str, *, seconds: float
    ) -> AsyncIterator[Self]:
        """:param seconds: for one answer, all of it"""
        headers = {} if not key else {"Authorization": f"Bearer {key}"}
        limit = aiohttp.ClientTimeout(total=seconds)
        async with aiohttp.ClientSession(
            headers=headers, timeout=limit, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            yield cls(session, url, name, instructions)

    async def reply(
        self, said: Sequence[tuple[str, str]], scripted: str, language: str
    ) -> str | None:
        """Say what the dialogue would, in better words; None where that must do.

        :param said: author (`lead` or `bot`) and text, oldest first
        """
        if time.monotonic() < self._rests_until:
            return None
        masks = _Masks()
        try:
            request = self._request(said, scripted, language, masks)
            reply = masks.lift(_reply(await self._ask(request)))
            outcome = "answered"
        except TimeoutError:
            reply, outcome = None, "timeout"
        except (aiohttp.ClientError, OSError):
            reply, outcome = None, "away"
        except ValueError as error:
            reply, outcome = None, str(error)
        metrics.MODEL.labels(outcome).inc()
        if reply is None:
            self._rests_until = time.monotonic() + REST_SECONDS
            log.warning("model.no_reply", outcome=outcome)
        return reply

    def _request(
        self, said: Sequence[tuple[str, str]], scripted: str, language: str, masks: "_Masks"
    ) -> dict[str, Any]:
        roles = {"lead": "user", "bot": "assistant"}
        told = f"{self._instructions}\nLanguage: {language}. Say the same as: {scripted}"
        return {
            "model": self._name,
            "temperature": 0.3,
            "max_tokens": 400,
            "messages": [
                {"role": "system", "content": masks.put_on(told)},
                *({"role": roles[who], "content": masks.put_on(text)} for who, text in said),
            ],
        }

    async def _ask(self, request: dict[str, Any]) -> bytes:
        async with self._session.post(self._url, json=request, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError("refused")
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > MAX_ANSWER:
                    raise ValueError("malformed")
            return bytes(body)


class _Masks:
    """Numbers in place of what reaches a person, and back."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def put_on(self, text: str) -> str:
        return facts.PERSONAL.sub(self._mask, text)

    def _mask(self, found: re.Match[str]) -> str:
        return self._known.setdefault(found[0], f"[contact {len(self._known) + 1}]")

    def lift(self, text: str) -> str:
        """:raises ValueError: `malformed`, a mask that nobody wore"""
        for original, mask in self._known.items():
            text = text.replace(mask, original)
        if "[contact" in text:
            raise ValueError("malformed")
        return text


def _reply(answer: bytes) -> str:
    """:raises ValueError: `malformed`"""
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        content = None
    reply = " ".join(content.split()) if isinstance(content, str) else ""
    if not 0 < len(reply) <= MAX_REPLY or "\0" in reply or not reply.isprintable():
        raise ValueError("malformed")
    return reply
