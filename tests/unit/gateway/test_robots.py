"""Proof of work: what `altcha` is given, and what it must not let through."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import altcha
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.cache import Cache
from libs.domain import forms
from libs.domain.signed_links import Tokens
from services.gateway.intake.forms import robots
from services.gateway.intake.forms.submission import Submission
from tests.support.shipped import EXAMPLE

OLD, NEW = (f"k{n}:" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
FORM = forms.load(EXAMPLE / "forms.toml")["contact"].model_copy(update={"proof": "on"})


class NoRedis:
    """The part of `Cache` that is used, for one process."""

    async def add(self, *_: object) -> bool:
        return True


def judge(keys: str = NEW) -> robots.Robots:
    return robots.Robots(keys, cast("Cache", NoRedis()))


def sent(proof: str | None, key: str = "a") -> Submission:
    return Submission(form="contact", key=key, language="pl", fields={}, proof=proof)


def solved(by: robots.Robots) -> str:
    challenge = altcha.Challenge.from_dict(by.challenge("contact", FORM) or {})
    solution = altcha.solve_challenge(challenge)
    assert solution is not None
    return altcha.Payload(challenge, solution).to_base64()


async def test_a_proof_outlives_a_rotation_of_the_keys_and_no_other_key_makes_one() -> None:
    proof = solved(judge(OLD))
    assert await judge(f"{NEW},{OLD}").has_solved(sent(proof))
    assert not await judge(NEW).has_solved(sent(proof))


async def test_a_challenge_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots, "LIFETIME", timedelta(seconds=-2))
    late = judge()
    assert not await late.has_solved(sent(solved(late)))
    assert not await late.has_confirmed(sent(late.confirmation("contact", FORM)))


async def test_memory_holds_no_more_uses_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots, "MOST_SERVED", 100)
    one = judge()
    for number in range(300):
        assert await one._serves(str(number), sent(None))
    assert len(one._served) == 100


GRACE = timedelta(days=30)


def shown(versions: str = "1 2026-11", days: float = 0.01, form: str = "contact") -> str:
    """Return `issued` of a page that has been open for so long."""
    return Tokens(NEW).sign(form, versions, robots.SHOWN, datetime.now(UTC) - timedelta(days))


@pytest.mark.parametrize(
    ("issued", "version", "notice", "suspicion", "recorded"),
    [
        (shown(), "1", "2026-11", None, "2026-11"),
        (shown(), None, None, None, None),
        (shown(days=400), "1", "2026-11", None, "2026-11"),
        (shown("0 2026-10", days=29), "0", "2026-10", None, "2026-10"),
        (shown("1 2026-10", days=29), "1", "2026-10", None, "2026-10"),
        (shown("0 2026-10", days=31), "0", "2026-10", "version", "2026-10"),
        (shown("0 2026-10", days=29), "1", "2026-11", None, "2026-11"),
        (shown(), "0", "2026-11", "version", None),
        (shown(), "1", "2026-10", "version", None),
        (shown("0 2026-10"), "x", "2026-10", "version", None),
        (shown("1 invented", form="other"), "1", "invented", "issued", None),
        (None, "1", "2026-11", "issued", "2026-11"),
        (None, "0", "invented", "issued", None),
        (shown(days=-1), "1", "2026-11", "fast", "2026-11"),  # however slow this machine is
    ],
)
def test_only_versions_that_were_published_count(
    issued: str | None, version: str | None, notice: str, suspicion: str | None, recorded: str
) -> None:
    given = Submission(
        form="contact", key="a", form_version=version, language="pl", fields={},
        notice_version=notice, issued=issued,
    )  # fmt: skip
    assert judge().suspicion(FORM, given, GRACE) == suspicion
    assert given.notice_version == recorded


def test_without_keys_or_a_minimum_only_an_invented_version_is_suspected() -> None:
    patient = FORM.model_copy(update={"minimum_seconds": 0})
    without = robots.Robots(None, cast("Cache", NoRedis()))
    for one, form in ((without, FORM), (judge(), patient)):
        given = Submission(
            form="contact", key="a", form_version="1", language="pl", fields={},
            notice_version="2026-11",
        )  # fmt: skip
        assert one.suspicion(form, given, GRACE) is None
        given.form_version = "0"
        assert one.suspicion(form, given, GRACE) == "version"
        assert given.notice_version is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
PARAMETERS = (
    "algorithm", "nonce", "salt", "cost", "keyLength", "keyPrefix", "keySignature", "memoryCost",
    "parallelism", "expiresAt", "data",
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    parameters=JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(PARAMETERS, JSON)),
    signature=JSON,
    solution=JSON | st.fixed_dictionaries({"counter": JSON, "derivedKey": JSON}),
)
async def test_no_forged_proof_passes_or_breaks(
    parameters: Any, signature: Any, solution: Any
) -> None:
    whole = {
        "challenge": {"parameters": parameters, "signature": signature},
        "solution": solution,
    }
    proof = base64.b64encode(json.dumps(whole).encode()).decode()
    assert not await judge().has_solved(sent(proof))


@given(st.text() | st.binary().map(lambda raw: base64.b64encode(raw).decode()))
async def test_nothing_else_breaks_it(proof: str) -> None:
    assert not await judge().has_solved(sent(proof))
    assert not await judge().has_confirmed(sent(proof))
