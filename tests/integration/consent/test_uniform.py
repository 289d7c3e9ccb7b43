"""Public answers do not reveal whether an address is known.

Time is not measured here: instead each request must run the same number of statements and
commits, whatever address it names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import event

from services.consent.settings import ConsentSettings
from tests.integration.consent.conftest import ADMIN, Consent

AGREED = {"text": "Zgadzam się na wiadomości.", "language": "pl"}


@dataclass
class Work:
    """What the database did."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0

    @property
    def amount(self) -> tuple[int, int]:
        return len(self.statements), self.commits


@contextmanager
def watched(consent: Consent) -> Iterator[Work]:
    work = Work()

    def statement(_c: Any, _cursor: Any, text: str, *_: Any) -> None:
        work.statements.append(text)

    def commit(_: Any) -> None:
        work.commits += 1

    listeners: Any = (("before_cursor_execute", statement), ("commit", commit))
    for name, listener in listeners:
        event.listen(consent.engine.sync_engine, name, listener)
    try:
        yield work
    finally:
        for name, listener in listeners:
            event.remove(consent.engine.sync_engine, name, listener)


@pytest.fixture(params=[False, True], ids=["opt-in", "double opt-in"])
def settings(request: pytest.FixtureRequest, settings: ConsentSettings) -> ConsentSettings:
    return settings.model_copy(update={"double_opt_in": request.param})


async def addresses(consent: Consent) -> list[str]:
    """Return an address with each kind of history."""
    for name in ("granted", "withdrawn", "asked-again", "erased", "bombed"):
        await consent.post("/api/opt-in", AGREED | {"email": f"{name}@example.com"})
    for name in ("withdrawn", "asked-again"):
        await consent.post("/api/unsubscribe", {"email": f"{name}@example.com"})
    await consent.post("/api/opt-in", AGREED | {"email": "asked-again@example.com"})
    await consent.post("/api/consent/erase", {"email": "erased@example.com"}, **ADMIN)
    for _ in range(2):
        await consent.post("/api/revoke-consent", {"email": "bombed@example.com"})
    names = ("unknown", "granted", "withdrawn", "asked-again", "erased", "bombed")
    return [f"{name}@example.com" for name in names]


CALLS = {
    "opt-in": ("POST", "/api/opt-in", AGREED),
    "unsubscribe": ("POST", "/api/unsubscribe", {}),
    "revoke": ("POST", "/api/revoke-consent", {}),
    "status": ("GET", "/api/unsubscribe/status/{email}", None),
}


@pytest.mark.parametrize("call", CALLS)
async def test_known_and_unknown_addresses_get_the_same_shape_headers_and_work(
    consent: Consent, call: str
) -> None:
    method, path, body = CALLS[call]
    seen, run = {}, []
    for email in await addresses(consent):
        sent = None if body is None else body | {"email": email}
        with watched(consent) as work:
            async with consent.client.request(
                method, path.format(email=email), json=sent
            ) as answer:
                shown = await answer.json()
                headers = {
                    name: value
                    for name, value in answer.headers.items()
                    if name not in {"X-Request-ID", "Date", "Content-Length"}
                }
        if "email" in shown:
            assert shown.pop("email") == (None if call == "status" else email)
        if call == "status":  # the one thing that it shows
            shown.pop("unsubscribed")
        seen[email] = (answer.status, shown, headers, work.amount)
        run.append(work.statements)
    first = seen["unknown@example.com"]
    assert first[0] == 200
    assert seen == dict.fromkeys(seen, first)
    if call in {"unsubscribe", "status"}:  # which mail nothing
        assert all(statements == run[0] for statements in run)
