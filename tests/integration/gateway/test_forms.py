"""Forms at the gateway alone: limits, bad bodies, and a followups that does not answer."""

import asyncio
import base64
import json
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altcha
import pytest
from aiohttp import web

from tests.integration.gateway.conftest import ROOT, SERVICE, Gateway, Owner, StartGateway
from tests.support.eventually import eventually
from tests.support.forms import CONTACT, SITE, config
from tests.support.forms import WIDE as NO_LIMITS
from tests.support.memory import resident
from tests.support.service import Answer

pytestmark = pytest.mark.promise("P11")

WIDE = dict.fromkeys(("API_RATE_LIMIT_HOUR", "API_RATE_LIMIT_MINUTE"), "1000000 per hour")
BAD_BODIES = 10_000


@pytest.fixture(autouse=True)
def followups(owner: Owner) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({}, status=202 if request.path == "/internal/leads" else 404)

    owner.handle = handle


def leads(owner: Owner) -> list[Any]:
    """Return what followups was handed by HTTP: there is no broker."""
    return owner.of("/internal/leads")


def without_limits(folder: Path) -> dict[str, str]:
    return WIDE | config(folder, limits=NO_LIMITS)


async def submit(gateway: Gateway, email: str, **headers: str) -> Answer:
    body = {"form": "contact", "language": "en", "fields": {"email": email}}
    sent = {"Origin": SITE, "Idempotency-Key": uuid.uuid4().hex, **headers}
    return await gateway.call("POST", "/api/leads", body, **sent)


async def test_of_many_at_once_exactly_the_limit_of_an_address_passes(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateways = [await start_gateway(**WIDE) for _ in range(2)]
    answers = await asyncio.gather(
        *(submit(gateways[n % 2], f"a{n}@example.com") for n in range(60))
    )
    assert Counter(answer.status for answer in answers) == {202: 20, 429: 40}
    assert len(leads(owner)) == 20
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["Retry-After"]) > 0
    assert (await submit(gateways[0], "b@example.com", **SERVICE)).status == 202


async def test_a_person_over_the_limit_of_an_address_is_told_when_to_try_again(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    gateway = await start_gateway(**WIDE, **config(tmp_path, limits={"address": "5 per day"}))
    answers = [await submit(gateway, f"a{n}@example.com") for n in range(8)]
    assert [answer.status for answer in answers] == [202] * 5 + [429] * 3
    given = {"form": "contact", "language": "en", "email": "a@example.com", "name": "Anna"}
    page = await gateway.send("POST", "/api/leads", {"Origin": SITE}, data=given)
    assert (page.status, page.headers["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert "Too many attempts" in page.body
    assert 'value="Anna"' in page.body
    assert len(leads(owner)) == 5


async def test_a_form_that_no_one_took_says_so_and_keeps_its_id(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    taken = owner.handle
    owner.say(status=503)
    gateway = await start_gateway(**without_limits(tmp_path))
    key = uuid.uuid4().hex
    answer = await submit(gateway, "a@example.com", **{"Idempotency-Key": key})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    given = {"form": "contact", "language": "en", "email": "b@example.com", "message": "Kitchen"}
    page = await gateway.send("POST", "/api/leads", {"Origin": SITE}, data=given)
    assert page.status == 503
    assert "the same message is taken only once" in page.body
    assert 'name="key"' not in page.body, "its repetition would be another lead"

    owner.handle = taken
    accepted = await submit(gateway, "a@example.com", **{"Idempotency-Key": key})
    moved = await gateway.send("POST", "/api/leads", {"Origin": SITE}, data=given)
    assert (accepted.status, moved.status) == (202, 303)
    ids = [json.loads(one["body"])["id"] for one in leads(owner)]
    assert len(ids) == 4
    assert Counter(ids) == {ids[0]: 2, ids[1]: 2}


async def test_another_body_under_a_known_key_is_refused_and_later_another_lead(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    gateway = await start_gateway(**without_limits(tmp_path))
    answers = [await submit(gateway, f"{name}@example.com", **key) for name in "aab"]
    assert [answer.status for answer in answers] == [202, 202, 422]
    assert answers[0].body["id"] == answers[1].body["id"]
    forgets = await start_gateway(**without_limits(tmp_path), REDIS_URL="redis://127.0.0.1:1/0")
    later = [await submit(forgets, f"{name}@example.com", **key) for name in "ba"]
    assert [answer.status for answer in later] == [202, 422]
    assert later[0].body["id"] != answers[0].body["id"]
    last = await start_gateway(**without_limits(tmp_path), REDIS_URL="redis://127.0.0.1:2/0")
    same = await submit(last, "a@example.com", **key)
    assert same.body["id"] == answers[0].body["id"], "the same request is the same lead"
    assert [json.loads(one["body"])["id"] for one in leads(owner)] == [
        answers[0].body["id"],
        later[0].body["id"],
        answers[0].body["id"],
    ]


async def test_a_post_over_the_general_limit_is_told_so_on_a_page(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(API_RATE_LIMIT_HOUR="1 per day")
    headers = {"Origin": SITE, "Accept-Language": "pl"}
    for _ in range(2):
        given = {"form": "contact", "email": "a@example.com"}
        page = await gateway.send("POST", "/api/leads", headers, data=given)
    assert (page.status, page.headers["Content-Type"]) == (429, "text/html; charset=utf-8")
    assert "Nic nie zostało wysłane" in page.body


@pytest.mark.parametrize("language", ["pl", "en"])
async def test_the_chat_s_link_leads_to_the_company_s_privacy_page(
    gateway: Gateway, tmp_path: Path, language: str
) -> None:
    answer = await gateway.call("GET", f"/privacy?language={language}")
    assert (answer.status, answer.headers["Location"]) == (302, CONTACT.notice.url[language])


async def test_a_link_to_a_form_that_is_gone_leads_to_a_page(gateway: Gateway) -> None:
    page = await gateway.send("GET", "/forms/gone", {"Accept-Language": "en"})
    assert (page.status, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "This form does not work now" in page.body


def bad_bodies(noise: random.Random) -> Iterator[tuple[bytes, str]]:
    """Yield distinct bodies, each wrong in its own way, with their content type."""
    good = {"form": "contact", "language": "pl", "fields": {"email": "a@example.com"}}
    cut = json.dumps(good).encode()
    for number in range(BAD_BODIES // 8):
        for wrong in (
            {"fields": {"email": f"{number} is none"}},
            {"fields": good["fields"] | {f"field_{number}": "x"}},  # type: ignore[operator]
            {"fields": {f"f{n}": number for n in range(noise.randint(2, 60))}},
            {f"more_{number}": None},
            {"consents": {f"purpose_{number}": "0" * 64}},
            {"language": f"{number}"},
        ):
            yield json.dumps(good | wrong).encode(), "application/json"
        yield cut[: noise.randrange(1, len(cut) - 1)] + b"%d" % number, "application/json"
        content = b"form=contact&email=%d&%d=x&%%ff=%d" % (number, number, number)
        yield content, "application/x-www-form-urlencoded"


async def test_ten_thousand_bad_bodies_are_refused_and_leave_nothing(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    gateway = await start_gateway(**without_limits(tmp_path))
    bodies = bad_bodies(random.Random(5))
    found: Counter[int] = Counter()

    async def send() -> None:
        for content, kind in bodies:
            headers = {"Origin": SITE, "Content-Type": kind}
            headers["Idempotency-Key"] = uuid.uuid4().hex
            answer = await gateway.send("POST", "/api/leads", headers, data=content)
            found[answer.status] += 1
            if sum(found.values()) == BAD_BODIES // 5:
                warm.append(resident(gateway.process.pid))

    warm: list[int] = []
    await asyncio.gather(*(send() for _ in range(20)))
    assert sum(found.values()) == BAD_BODIES
    assert found.keys() == {400, 422}, found
    assert leads(owner) == []
    assert resident(gateway.process.pid) - warm[0] < 10 * 1024, "kilobytes"
    assert (await submit(gateway, "a@example.com")).status == 202


async def test_a_gateway_whose_forms_alert_no_one_does_not_start(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    text = (ROOT / "config.example" / "alerts.toml").read_text(encoding="utf-8")
    path = tmp_path / "alerts.toml"
    path.write_text(f'{text}\n[routes]\n"lead.submitted" = false\n', encoding="utf-8")
    with pytest.raises(RuntimeError, match=r'\[routes\] needs "lead.submitted"'):
        await start_gateway(ALERTS_CONFIG=str(path))


def with_proof(folder: Path) -> dict[str, str]:
    """Two forms alike that ask for a proof of work."""
    settings = WIDE | config(folder, "contact", "other", limits=NO_LIMITS, proof="on")
    return settings | {"FORM_KEYS": "k1:" + base64.b64encode(bytes(32)).decode()}


async def solved(gateway: Gateway, form: str = "contact") -> str:
    challenge = altcha.Challenge.from_dict(
        (await gateway.call("GET", f"/api/forms/{form}")).body["challenge"]
    )
    solution = await asyncio.to_thread(altcha.solve_challenge, challenge)
    assert solution is not None
    return altcha.Payload(challenge, solution).to_base64()


async def test_a_proof_serves_one_lead_over_all_gateways_as_often_as_it_is_tried(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    settings = with_proof(tmp_path)
    gateways = [await start_gateway(**settings) for _ in range(2)]
    missing = await submit(gateways[0], "a@example.com")
    assert (missing.status, missing.body["errors"][0]["field"]) == (422, "X-Proof")
    assert leads(owner) == []

    proof = {"X-Proof": await solved(gateways[0])}
    answers = await asyncio.gather(
        *(submit(gateways[0], f"a{n}@example.com", **proof) for n in range(20))
    )
    assert Counter(answer.status for answer in answers) == {202: 1, 422: 19}
    assert len(leads(owner)) == 1

    async def is_known_to_the_other() -> bool:  # where Redis is slow, each remembers its own
        proof = {"X-Proof": await solved(gateways[0])}
        first, other = [await submit(each, "a@example.com", **proof) for each in gateways]
        return (first.status, other.status) == (202, 422)

    await eventually(is_known_to_the_other, 30)
    key = {"Idempotency-Key": uuid.uuid4().hex}
    proof = {"X-Proof": await solved(gateways[1])}
    same = [await submit(each, "b@example.com", **key, **proof) for each in gateways]
    assert [answer.status for answer in same] == [202, 202]
    assert same[0].body == same[1].body


async def test_a_proof_is_of_its_form_and_of_ours(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    gateway = await start_gateway(**with_proof(tmp_path))
    whole = json.loads(base64.b64decode(await solved(gateway)))
    cheaper = json.loads(json.dumps(whole))
    cheaper["challenge"]["parameters"]["keyPrefix"] = ""
    wrong = json.loads(json.dumps(whole))
    wrong["solution"]["counter"] += 1
    forged: list[Any] = [
        cheaper,
        wrong,
        {"challenge": whole["challenge"]},
        whole["challenge"],
        [],
        None,
    ]
    for bad in forged:
        proof = base64.b64encode(json.dumps(bad).encode()).decode()
        assert (await submit(gateway, "a@example.com", **{"X-Proof": proof})).status == 422, bad
    for proof in ("", "x", "a" * 4000, await solved(gateway, "other")):
        assert (await submit(gateway, "a@example.com", **{"X-Proof": proof})).status == 422
    assert leads(owner) == []
    assert (await submit(gateway, "a@example.com", **SERVICE)).status == 202
    good = base64.b64encode(json.dumps(whole).encode()).decode()
    assert (await submit(gateway, "a@example.com", **{"X-Proof": good})).status == 202


async def test_without_redis_each_gateway_still_takes_a_proof_for_one_lead(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**with_proof(tmp_path), REDIS_URL="redis://127.0.0.1:1/0")
    proof = {"X-Proof": await solved(gateway)}
    first, other = [await submit(gateway, f"{name}@example.com", **proof) for name in "ab"]
    assert (first.status, other.status) == (202, 422)


async def test_a_page_without_a_script_is_sent_by_pressing_once_more(
    start_gateway: StartGateway, owner: Owner, tmp_path: Path
) -> None:
    gateway = await start_gateway(**with_proof(tmp_path))
    given = {"form": "contact", "language": "en", "email": "a@example.com", "name": "Anna"}

    async def post(**changed: str) -> Answer:
        return await gateway.send("POST", "/api/leads", {"Origin": SITE}, data=given | changed)

    page = await post()
    assert page.status == 422
    assert "Please press “Send” once more" in page.body
    assert 'value="Anna"' in page.body
    (proof,) = re.findall(r'name="proof" value="([^"]+)"', page.body)
    assert leads(owner) == []
    for bad in ("x", proof[:-1], f"{proof}x"):
        assert (await post(proof=bad)).status == 422
    assert (await post(proof=proof)).status == 303
    assert (await post(proof=proof)).status == 303, "pressed twice"
    assert (await post(proof=proof, email="b@example.com")).status == 422, "another lead"
    assert (await post(proof=proof, form="other")).status == 422
    assert len({json.loads(one["body"])["id"] for one in leads(owner)}) == 1
    wrong = await post(email="none", name='"><script>alert(1)</script>')
    assert "<script" not in wrong.body
    assert 'name="key"' not in wrong.body, "another key would make its repetition another lead"
    assert "does not look like an e-mail address" in wrong.body
    (proof,) = re.findall(r'name="proof" value="([^"]+)"', wrong.body)
    assert (await post(proof=proof, email="c@example.com")).status == 303


async def test_an_address_that_looks_mistyped_is_asked_about_once(
    start_gateway: StartGateway, owner: Owner
) -> None:
    gateway = await start_gateway()

    async def post(**given: str) -> Answer:
        data = {"form": "contact", "language": "pl", "name": "Jan"} | given
        return await gateway.send("POST", "/api/leads", {"Origin": SITE}, data=data)

    page = await post(email="jan@exmaple.pl")
    assert page.status == 422
    assert "Czy chodziło o jan@example.pl?" in page.body
    assert leads(owner) == []
    (sure,) = re.findall(r'name="sure" value="([^"]+)"', page.body)
    assert (await post(email="jan@gmial.com", sure=sure)).status == 422, "another address"
    assert (await post(email="jan@exmaple.pl", sure=sure)).status == 303
    assert (await post(phone="601 234 567")).status == 303, "a number is enough"
    assert "wystarczy e-mail albo telefon" in (await post(name="Jan")).body
    told = [json.loads(one["body"])["facts"] for one in leads(owner)]
    assert [each.get("email") for each in told] == ["jan@exmaple.pl", None]


async def test_a_gateway_without_keys_has_no_form_that_asks_for_a_proof(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"FORM_KEYS is not set, and forms\.contact"):
        await start_gateway(**with_proof(tmp_path) | {"FORM_KEYS": ""})
