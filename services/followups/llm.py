"""Optional rewording of the dialogue's reply by an OpenAI-compatible model.

The dialogue alone decides facts, score, the next question and consent. The model only rewords the
reply, and `wording` rejects an answer that says something else. Turns with fixed words (consent, a
route's answer, the privacy notice, a promise) never reach the model. If it fails or is slow, all
waiting turns give up at once, the model gets a pause, and the dialogue's own reply is used. Contact
data, names and places are masked before they leave.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp

from libs.common.process import logs
from services.followups import metrics, wording
from services.followups.understanding.addresses import PERSONAL

REMEMBERED = 20
"""Messages of a conversation that the model sees."""
REST_SECONDS = 30.0
MAX_ANSWER = 256 * 1024
MAX_REPLY = 2000
MASK = "private"
SAY = "Keep what stands in [brackets] as it is. Say the same as: "

log = logs.get_logger(__name__)


class ChatModel:
    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        name: str,
        instructions: str,
        seconds: float,
    ) -> None:
        self._session = session
        self._seconds = seconds
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._name = name
        self._instructions = instructions
        self._rests_until = 0.0
        self._waiting: set[asyncio.Timeout] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, key: str, name: str, instructions: str, *, seconds: float
    ) -> AsyncIterator[Self]:
        """:param seconds: time-out for one whole answer"""
        headers = {} if not key else {"Authorization": f"Bearer {key}"}
        limit = aiohttp.ClientTimeout(total=None)  # _in_time has its own: one turn can end all
        async with aiohttp.ClientSession(
            headers=headers, timeout=limit, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            yield cls(session, url, name, instructions, seconds)

    async def reply(
        self,
        said: Sequence[tuple[str, str]],
        scripted: str,
        language: str,
        private: Sequence[str] = (),
    ) -> str | None:
        """Return the scripted reply in better words; None if the script must be used.

        :param said: author (`lead` or `bot`) and text, oldest first
        :param private: known names and places, to be masked
        """
        if time.monotonic() < self._rests_until:
            return None
        masks = _Masks(private)
        try:
            request = self._request(said, scripted, language, masks)
            reply = masks.lift(_reply(await self._in_time(request)))
            outcome = "answered"
        except TimeoutError:
            reply, outcome = None, "timeout"
        except (aiohttp.ClientError, OSError):
            reply, outcome = None, "unavailable"
        except ValueError as error:
            reply, outcome = None, str(error)
        if reply is None:
            self._rests_until = time.monotonic() + REST_SECONDS
            for other in self._waiting:  # the other turns would time out as well
                if not other.expired():
                    other.reschedule(asyncio.get_running_loop().time())
            log.warning("llm.no_reply", outcome=outcome)
        elif reason := wording.unfaithful(reply, scripted, language):
            reply, outcome = None, "unfaithful"
            log.info("llm.reply_rejected", reason=reason)
        metrics.MODEL.labels(outcome).inc()
        return reply

    async def _in_time(self, request: dict[str, Any]) -> bytes:
        async with asyncio.timeout(self._seconds) as patience:
            self._waiting.add(patience)
            try:
                return await self._ask(request)
            finally:
                self._waiting.discard(patience)

    def _request(
        self, said: Sequence[tuple[str, str]], scripted: str, language: str, masks: "_Masks"
    ) -> dict[str, Any]:
        roles = {"lead": "user", "bot": "assistant"}
        told = f"{self._instructions}\nLanguage: {language}. {SAY}{masks.put_on(scripted)}"
        return {
            "model": self._name,
            "temperature": 0.3,
            "max_tokens": 400,
            "messages": [
                {"role": "system", "content": told},
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


_CAPITALISED = re.compile(
    r"(?<=.)(?<![.!?] )\b(?!Pan(?:i|a|u|em|ią|ie)?\b|Państw)"
    r"[A-ZĄĆĘŁŃÓŚŹŻ][\w'’-]+(?: [A-ZĄĆĘŁŃÓŚŹŻ][\w'’-]+)*"
)
"""A name or a place in the middle of a Polish or English sentence."""
_STREET = re.compile(
    r"\b(?:ul|al|os|pl)\.?\s+[\w-]+(?:\s+[A-ZĄĆĘŁŃÓŚŹŻ]\w+)*(?:\s+\d+\w?(?:\s?/\s?\d+)?)?"
    r"|\b\d\d-\d{3}\b",
    re.IGNORECASE,
)
_URL = re.compile(r"https?://\S+")


class _Masks:
    """Replaces contact data, names and places with numbered masks, and back."""

    def __init__(self, private: Sequence[str]) -> None:
        self._known: dict[str, str] = {}
        parts = [re.escape(part) for each in private for part in each.split() if len(part) > 2]
        names = [re.compile(rf"\b(?:{'|'.join(parts)})\w{{0,4}}", re.IGNORECASE)] if parts else []
        self._patterns = [_URL, PERSONAL, _STREET, *names, _CAPITALISED]

    def put_on(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(self._mask, text)
        return text

    def _mask(self, found: re.Match[str]) -> str:
        return self._known.setdefault(found[0], f"[{MASK} {len(self._known) + 1}]")

    def lift(self, text: str) -> str:
        """:raises ValueError: `malformed`: the text contains an unknown mask"""
        # Newest first: a later match may contain an earlier mask.
        for original, mask in reversed(self._known.items()):
            text = text.replace(mask, original)
        if f"[{MASK}" in text:
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
