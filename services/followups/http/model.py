"""Asks a model to read a message of which no rule is sure (decision 62). It never speaks."""

import asyncio
import json
from collections.abc import Sequence

import aiohttp
from pydantic import BaseModel, Field, SecretStr

from libs.common import beside
from libs.common.process.logs import log
from services.followups.dialogue.hearing import NO_HINT, Hint, OfWorks

SECONDS = 2
AT_A_TIME = 4
_ANSWER_BYTES = 64 * 1024
_PROMPT: str = beside.toml(__file__)["prompt"]


class _Quote(BaseModel):
    name: OfWorks
    quote: str = Field(min_length=1, max_length=400)


class _Read(BaseModel):
    kind: str | None = None
    facts: list[_Quote] = Field([], max_length=8)


class Model:
    """A server that speaks OpenAI's `/v1/chat/completions`, here or elsewhere."""

    def __init__(self, url: str, name: str, key: SecretStr, kinds: Sequence[str]) -> None:
        """:param kinds: routes that may be asked about"""
        self._url, self._kinds = url, kinds
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        schema = _Read.model_json_schema()
        schema["properties"]["kind"] = {"enum": [*kinds, None]}
        form = {"type": "json_schema", "json_schema": {"name": "read", "schema": schema}}
        self._body = {"model": name, "temperature": 0, "max_tokens": 400, "response_format": form}
        self._at_a_time = asyncio.Semaphore(AT_A_TIME)

    async def read(self, text: str) -> Hint:
        """Return what it read; nothing if it fails, or takes longer than SECONDS."""
        said = [{"role": "system", "content": _PROMPT}, {"role": "user", "content": text}]
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._at_a_time,
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.post(
                    self._url,
                    json=self._body | {"messages": said},
                    headers=self._headers,
                    allow_redirects=False,
                ) as answer,
            ):
                answer.raise_for_status()
                raw = b""
                while (part := await answer.content.read(_ANSWER_BYTES)) and len(
                    raw
                ) < _ANSWER_BYTES:
                    raw += part
            read = _Read.model_validate_json(json.loads(raw)["choices"][0]["message"]["content"])
        except (aiohttp.ClientError, LookupError, OSError, TypeError, ValueError) as error:
            log.warning("chat.model_failed", fault=type(error).__name__)
            return NO_HINT
        kind = read.kind if read.kind in self._kinds else None
        return Hint(kind, tuple((fact.name, fact.quote) for fact in read.facts))
