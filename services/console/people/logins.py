"""Lets people in: by a password and a second factor, or by the company account.

Each login and each change of a credential is one transaction with its record. If the process is
killed after the commit, only the answer is lost, and a session without its cookie opens nothing.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.common.process.logs import log
from libs.domain.acts import Actor
from services.console import metrics, record
from services.console.people.factor import Seal, new_recovery_codes, plain, step_of
from services.console.people.notices import Notices
from services.console.people.oidc import Identity, OidcError
from services.console.people.passwords import Passwords, TooManyError
from services.console.people.people import KIND
from services.console.rules import MOST_WRONG_CODES, STEP_UP, Ways, login_wait
from services.console.store import people, sessions, versions
from services.console.store.people import digest
from services.console.store.sessions import Visitor
from services.console.store.sql import run
from services.console.store.versions import change, people_change

MOST_WAITING = 50
"""Tries that wait after failures; each uses a connection of the gateway's."""
RECORDED = 5
"""Consecutive failures of an account that are all recorded; after these, each 2^n-th is."""


class UsedInvitationError(Exception):
    """the link was used, or has ended"""


class StrangerError(OidcError):
    """this account is nobody's here, or another person's"""

    fault = "oidc_stranger"


class StaleError(OidcError):
    """the provider does not say that they have proved it just now"""

    fault = "oidc_stale"


class NoPasswordsError(Exception):
    """people log in at the identity provider only"""


@dataclass(frozen=True, slots=True)
class Try:
    """What somebody enters, and from which address."""

    password: str
    code: str
    """The second factor's code; empty if there is none."""
    browser: str
    address: str


class Logins:
    def __init__(
        self, engine: AsyncEngine, passwords: Passwords, ways: Ways, keys: str, notices: Notices
    ) -> None:
        """:param keys: OPERATOR_KEYS"""
        self._engine = engine
        self._passwords = passwords
        self._ways = ways
        self._seal = Seal(keys)
        self._notices = notices
        self._waiting = 0

    async def accept(self, token: str, given: Try) -> str | None:
        """Set the password of an invited person; return the token of a session.

        :returns: None: they log in with it, because a code of their second factor is also due
        :raises UsedInvitationError, WeakPasswordError:
        """
        self._require_passwords()
        found = (await run.alone(self._engine, "invited", token=digest(token))).one_or_none()
        if found is None:
            raise UsedInvitationError
        hashed = await self.hashed(found, given.password)
        async with people_change(self._engine) as tx:
            # Another use may have been first: the row's lock decides.
            if not (await run(tx, "use_invitation", token=digest(token))).rowcount:
                raise UsedInvitationError
            await people.set_credential(tx, found.id, kind=people.PASSWORD, hash=hashed)
            await self._replaced(tx, found)
            await record.act(tx, _actor(found), "staff.join", KIND, str(found.id))
            return None if found.factor else await sessions.begin(tx, found.id, given.browser)

    async def log_in(self, email: str, given: Try) -> str | None:
        """Return the token of a session; None: no such account, or not its password and code.

        :raises TooManyError: too many try at once
        """
        self._require_passwords()
        await self._slow(email, given.address)
        async with self._engine.connect() as tx:
            found = await people.find(tx, email=email)
            hashed = (await run(tx, "password_hash", id=found.id)).scalar() if found else None
        right = await self._passwords.verify(hashed, given.password)
        session = None
        if right and found is not None and hashed is not None and found.disabled_at is None:
            is_old = self._passwords.is_old(hashed)
            fresh = await self._passwords.hash(given.password) if is_old else None
            async with change(self._engine) as tx:
                if await self._opens(tx, found, hashed, given):
                    if fresh:
                        await run(tx, "rehash", id=found.id, hashed=fresh)
                    session = await sessions.begin(tx, found.id, given.browser)
                    await record.act(tx, _actor(found), "session.begin", KIND, str(found.id))
        if session is None:
            await self._refuse(email, found, given.address)
        else:
            metrics.LOGINS.labels("done").inc()
        return session

    async def confirm(self, visitor: Visitor, given: Try) -> str | None:
        """Step up with password and code; tries are counted and slowed as for a login.

        :returns: the session's new token; None: refused
        """
        self._require_passwords()
        await self._slow(visitor.email, given.address)
        async with self._engine.connect() as tx:
            found = await people.find(tx, id=visitor.staff_id)
            hashed = (await run(tx, "password_hash", id=visitor.staff_id)).scalar()
        if await self._passwords.verify(hashed, given.password):
            async with self._engine.begin() as tx:
                if await self._opens(tx, found, str(hashed), given):
                    return await sessions.step_up(tx, visitor.session)
        await self._refuse(visitor.email, found, given.address)
        return None

    async def _opens(self, tx: AsyncConnection, person: Any, hashed: str, given: Try) -> bool:
        """Use the code given with a right password, and forget earlier failures."""
        if not await run(tx, "still_opens", id=person.id, hashed=hashed):
            return False  # an invitation came between
        if person.factor is not None and not await self._code_opens(tx, person, given.code):
            return False
        for tried in ((person.email, given.address), (person.email,), (person.email, "code")):
            await run(tx, "forget_tries", tried=digest(" ".join(tried)))
        return True

    async def _code_opens(self, tx: AsyncConnection, person: Any, code: str) -> bool:
        secret, step = self._seal.open(person.factor), None
        # Tries with the right password: too few to guess a code, and recovery codes still work.
        if await people.count_try(tx, person.email, "code") < MOST_WRONG_CODES:
            step = step_of(secret, code, time.time())
        given = {"step": step, "code": digest(plain(code))}
        left = (await run(tx, "use_code", id=person.id, **given)).scalar()
        if left is None:
            return False
        if left < len(person.recovery):
            await self._notices.mail_what(tx, person, "recovery", n=left)
        sealed = self._seal.close(secret)  # by today's key
        await run(tx, "seal_factor", id=person.id, factor=sealed)
        return True

    async def set_own_password(self, visitor: Visitor, hashed: str, browser: str) -> str:
        """Change the password of somebody who has just confirmed; every other session ends.

        :param hashed: by `hashed`
        :returns: the token of a new session
        """
        async with people_change(self._engine) as tx:
            own = visitor.staff_id
            await people.set_credential(tx, own, kind=people.PASSWORD, hash=hashed)
            await sessions.end(tx, visitor.staff_id)
            await self._told(tx, visitor, "password")
            return await sessions.begin(tx, visitor.staff_id, browser)

    async def set_factor(self, visitor: Visitor, secret: str, code: str) -> list[str] | None:
        """Set the second factor that gave this code; return recovery codes. None: a wrong code."""
        step = step_of(secret, code, time.time())
        if step is None:
            return None
        codes = new_recovery_codes()
        digests = [digest(plain(each)) for each in codes]
        async with people_change(self._engine) as tx:
            await people.set_factor(tx, visitor.staff_id, self._seal.close(secret), step, digests)
            await self._told(tx, visitor, "factor")
        return codes

    async def remove_factor(self, visitor: Visitor) -> None:
        async with people_change(self._engine) as tx:
            await people.set_factor(tx, visitor.staff_id, None)
            await self._told(tx, visitor, "factor_removed")

    async def log_in_as(self, identity: Identity, browser: str) -> str:
        """Return the token of a session.

        The first time, the address for which the provider vouches finds the invitation. Later the
        address counts for nothing: it may have become somebody else's.

        :raises StrangerError: not a person whom we know or have invited
        """
        action = "session.begin"
        async with change(self._engine) as tx:
            named = {"issuer": identity.issuer, "subject": identity.subject}
            found = (await run(tx, "by_identity", **named)).one_or_none()
            if found is None and identity.email is not None:
                used = await run(tx, "use_invitation_of", email=identity.email)
                if (found := used.one_or_none()) is not None:
                    await people.set_credential(tx, found.id, kind=people.OIDC, **named)
                    await self._replaced(tx, found)
                    await versions.advance(tx)
                    action = "staff.join"
            if found is None or found.disabled_at is not None:
                metrics.LOGINS.labels("refused").inc()
                raise StrangerError
            session = await sessions.begin(tx, found.id, browser, identity.proved_at)
            await record.act(tx, _actor(found), action, KIND, str(found.id), reason="oidc")
        metrics.LOGINS.labels("done").inc()
        return session

    async def confirm_as(self, visitor: Visitor, identity: Identity) -> str:
        """Step up by the identity provider; return the session's new token.

        :raises StrangerError, StaleError:
        """
        async with self._engine.begin() as tx:
            named = {"issuer": identity.issuer, "subject": identity.subject}
            found = (await run(tx, "by_identity", **named)).one_or_none()
            if found is None or found.id != visitor.staff_id:
                raise StrangerError
            if datetime.now(UTC) - identity.proved_at > STEP_UP:
                raise StaleError
            return await sessions.step_up(tx, visitor.session, identity.proved_at)

    async def end_session(self, visitor: Visitor, session: bytes) -> None:
        async with people_change(self._engine) as tx:
            await sessions.end(tx, visitor.staff_id, session)
            ref = str(visitor.staff_id)
            await record.act(tx, visitor.actor, "session.end", KIND, ref)

    async def hashed(self, person: Any, password: str) -> str:
        """:raises WeakPasswordError:"""
        words = (*self._ways.words, person.name, person.email)
        return await self._passwords.new(password, *words)

    async def _replaced(self, tx: AsyncConnection, person: Any) -> None:
        """End the sessions of the replaced credential, and notify the person."""
        await sessions.end(tx, person.id)
        if person.proof_at is not None:
            await self._notices.mail_what(tx, person, "replaced")

    async def _told(self, tx: AsyncConnection, visitor: Visitor, what: str) -> None:
        """Record a change to one's own account, and notify the person: it may have been another."""
        ref = str(visitor.staff_id)
        await record.act(tx, visitor.actor, f"staff.{what}", KIND, ref)
        await self._notices.mail_what(tx, visitor, what)

    async def _slow(self, email: str, address: str) -> None:
        """Count a try, and wait after failures of this account from this address.

        Failures from elsewhere neither keep an account's owner out nor make them wait.

        :raises TooManyError: as many wait as may
        """
        async with self._engine.begin() as tx:
            seconds = login_wait(await people.count_try(tx, email, address))
        if not seconds:
            return
        if self._waiting >= MOST_WAITING:
            raise TooManyError
        self._waiting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting -= 1

    async def _refuse(self, email: str, found: Any, address: str) -> None:
        """Note in metric, log and record which account refused a login, and from which address."""
        account = str(found.id) if found else "unknown"
        metrics.LOGINS.labels("refused").inc()
        log.warning("login.refused", account=account, address=address)
        async with self._engine.begin() as tx:
            failures = await people.count_try(tx, email) + 1
            if failures > RECORDED and failures & (failures - 1):
                return
            noted, reason = await tx.begin_nested(), f"failures: {failures}"
            actor = Actor("env", "login", client_address=address)
            await record.act(tx, actor, "session.refuse", KIND, account, reason=reason)
            # An unknown account costs the same work, but nobody fills the record with names.
            await (noted.commit() if found else noted.rollback())

    def _require_passwords(self) -> None:
        if not self._ways.passwords:
            raise NoPasswordsError


def _actor(person: Any) -> Actor:
    return Actor("staff", str(person.id), person.name, tuple(person.roles))
