"""Tells robots from people: a field that people do not see, their speed, and proof of work.

A suspicion never drops a lead: it is kept apart. A missing proof is asked for: the widget
solves a challenge of ALTCHA's second protocol, and a page without a script is shown once more.
"""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import altcha

from libs.common.cache import Cache, LocalCache
from libs.domain.forms import Form
from libs.domain.signed_links import InvalidToken, Tokens, parse_keys
from services.gateway.intake.forms.submission import Submission

SHOWN, CONFIRMED = "form", "form.confirmed"
ALGORITHM, COST = "PBKDF2/SHA-256", 1000
"""With the default prefix of one byte: 256 keys on average, a fifth of a second in a browser."""
LIFETIME = timedelta(minutes=20)
MOST_SERVED = 50_000
"""Challenges whose use a process remembers; 15 MB."""
REMEMBERED_SECONDS = LIFETIME.total_seconds() + 60
"""How long a used challenge is remembered: longer than it lives, by any gateway's clock."""


class Robots:
    def __init__(self, keys: str | None, cache: Cache) -> None:
        """:param keys: FORM_KEYS; without them no page carries a time, and no proof is accepted
        :param cache: tells all gateways which lead used a challenge
        """
        self._tokens = Tokens(keys) if keys else None
        ring = parse_keys(keys).values() if keys else ()
        self._secrets = [hmac.digest(key, b"altcha", hashlib.sha256) for key in ring]
        self._cache = cache
        self._served = LocalCache(MOST_SERVED)

    def issued(self, name: str, form: Form) -> str | None:
        """Return the time at which a form is shown, and its versions, signed."""
        if self._tokens is None:
            return None
        return self._tokens.sign(name, " ".join(_versions(form)), SHOWN, datetime.now(UTC))

    def suspicion(self, form: Form, given: Submission, grace: timedelta) -> str | None:
        """Return why a submission looks like a robot's; None if it does not.

        Only versions that we published count: today's, and those that `issued` says a page showed.
        The version of a notice that we did not publish is no evidence, and is removed.

        :param grace: for how long a page of an older version may be open
        """
        shown, age = self._shown(given)
        today = _versions(form)
        first, second = shown or today
        claimed = given.form_version or first, given.notice_version or second
        if claimed not in {today, shown}:
            given.notice_version = None
        if given.trap:
            return "trap"
        has_time = given.issued is not None or form.minimum_seconds > 0
        if shown is None and has_time and self._tokens is not None:
            return "issued"
        if claimed != today and (claimed != shown or age > grace):
            return "version"
        return "fast" if shown and age.total_seconds() < form.minimum_seconds else None

    def _shown(self, given: Submission) -> tuple[tuple[str, str] | None, timedelta]:
        """Return the versions that its page showed, if we signed them, and how long ago."""
        now = datetime.now(UTC)
        try:
            claims = self._tokens and self._tokens.verify(given.issued or "", SHOWN, now)
        except InvalidToken:
            claims = None
        if not claims or claims.subject != given.form:
            return None, timedelta()
        version, _, notice = claims.purpose.partition(" ")
        return (version, notice), timedelta(seconds=now.timestamp() - claims.issued_at)

    def challenge(self, name: str, form: Form) -> dict[str, Any] | None:
        """Return what a page's script has to solve, signed; None if the form asks for no proof."""
        if form.proof == "off":
            return None
        made: dict[str, Any] = altcha.create_challenge(
            ALGORITHM,
            COST,
            expires_at=datetime.now(UTC) + LIFETIME,
            data={"form": name},
            hmac_secret=self._secrets[0],
        ).to_dict()
        return made

    async def has_solved(self, given: Submission) -> bool:
        try:
            payload = altcha.Payload.from_base64(given.proof or "")
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if not any(altcha.verify_solution(payload, secret).verified for secret in self._secrets):
            return False
        challenge = payload.challenge  # authentic, so it is as we made it
        if challenge.parameters.data != {"form": given.form}:
            return False
        return await self._serves(str(challenge.signature), given)

    def confirmation(self, name: str, form: Form) -> str | None:
        """Return what our page sends back; None if the form asks for no proof."""
        if form.proof == "off" or self._tokens is None:
            return None
        return self._tokens.sign(name, secrets.token_urlsafe(12), CONFIRMED, datetime.now(UTC))

    async def has_confirmed(self, given: Submission) -> bool:
        if given.proof is None or self._tokens is None:
            return False
        try:
            claims = self._tokens.verify(given.proof, CONFIRMED, datetime.now(UTC), LIFETIME)
        except InvalidToken:
            return False
        return claims.subject == given.form and await self._serves(given.proof, given)

    async def _serves(self, proof: str, given: Submission) -> bool:
        """Return whether it serves this lead: only one, which may be sent repeatedly.

        Without Redis each process still remembers what it has seen itself.
        """
        key = "proof:" + hashlib.sha256(proof.encode()).hexdigest()
        lead_id = str(given.lead_id).encode()
        known = self._served.get(key)
        if known is None:
            # Before Redis is asked: another lead may arrive with it during the call.
            self._served.set(key, lead_id, REMEMBERED_SECONDS)
            known = lead_id
            if not await self._cache.add(key, lead_id, REMEMBERED_SECONDS):
                known = await self._cache.get(key) or b"another"
                self._served.set(key, known, REMEMBERED_SECONDS)
        return known == lead_id


def _versions(form: Form) -> tuple[str, str]:
    return form.version, form.notice.version
