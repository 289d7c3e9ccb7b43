"""`make demo`: shows what Ostoja does on the running system. Each step checks what it shows.

Standard library only. Addresses and keys come from .env, or from the environment in a container.
"""

import hashlib
import json
import os
import re
import secrets
import sys
import textwrap
import time
import tomllib
import urllib.error
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_string
from email.header import decode_header, make_header
from email.message import Message
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

from deploy.up import environment
from deploy.up.process import HOST

T = TypeVar("T")

REAL = ("SLACK_WEBHOOK_URL", "MONDAY_API_URL", "SMS_API_URL", "SMTP_HOST", "WEBHOOK_URL")
ALERTS = 12  # more than the failures that open a breaker
WIDTH = 78
TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
KASIA = "Kasia Wrona"
ASKS, TAKEN = "Lead: kitchen, Gdynia: has waited", "Lead: kitchen, Gdynia: taken by"


class DemoError(Exception):
    """The text is shown to the user."""


class Teller:
    """Prints what happens; in colour on a terminal."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._step = 0

    def step(self, name: str) -> None:
        self._step += 1
        title, why = TEXTS["steps"][name]
        print()
        print(self.styled("1", f"{self._step}. {title}"))
        self._wrapped("   ", why, "2")

    def does(self, who: str, what: str) -> None:
        self._wrapped(f"   {who:>7} > ", what, "36")

    def holds(self, what: str) -> None:
        self._wrapped(f"   {'ok':>7} : ", what, "32")

    def styled(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text

    def _wrapped(self, first: str, text: str, style: str) -> None:
        lines = textwrap.wrap(text, WIDTH - len(first), break_on_hyphens=False)
        for number, line in enumerate(lines):
            print(self.styled(style, first if number == 0 else " " * len(first)) + line)


class World:
    """The gateway, the sandbox's providers, and the mailbox."""

    def __init__(self) -> None:
        values = environment.load(environment.ROOT / ".env")
        if real := [name for name in REAL if values.get(name)]:
            raise DemoError(
                f"the settings name real providers ({', '.join(real)}); nothing was sent"
            )
        self.gateway, self._sandbox, self._mail = (
            os.environ.get(f"DEMO_{name}_URL") or f"http://{HOST}:{values[f'{name}_PORT']}"
            for name in ("GATEWAY", "SANDBOX", "SANDBOX_MAIL")
        )
        self.public = values["PUBLIC_BASE_URL"] or self.gateway
        self._asks_nobody = values.get("DOUBLE_OPT_IN") == "off"
        self._keys = {
            "service": ("X-API-KEY", values["SERVICE_API_KEY"]),
            "admin": ("X-ADMIN-API-KEY", values["ADMIN_API_KEY"]),
        }

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """Call the gateway and return the answer's JSON.

        :raises DemoError: the call failed
        """
        headers = dict([self._keys[key]]) if key else {}
        return json.loads(_fetch(method, self.gateway + path, body=body, headers=headers))

    def page(self, path: str, **form: str) -> str:
        """Return a page of the gateway, or what its form answers."""
        return _fetch("POST" if form else "GET", self.gateway + path, form=form)

    def site(self) -> str:
        """Return the company's web page, as a browser gets it."""
        return _fetch("GET", f"{self._sandbox}/")

    def submit(self, body: dict[str, Any], key: str) -> Any:
        """Send a form as a page does; every form takes those of the gateway's own origin."""
        headers = {"Idempotency-Key": key, "Origin": self.public}
        return json.loads(_fetch("POST", f"{self.gateway}/api/leads", body=body, headers=headers))

    def alert(self, event_type: str, **payload: Any) -> str:
        body = {"event_type": event_type, "payload": payload}
        accepted = self.call("POST", "/api/alerts", body, key="service")
        return str(accepted["id"])

    def opt_in(self, address: str) -> None:
        (shown,) = self.call("GET", "/api/forms/contact?language=en")["consents"]
        agreed = {"email": address, "wording": shown["sha256"], "language": "en"}
        self.call("POST", "/api/opt-in", agreed, key="service")
        self.confirm(address)

    def confirm(self, address: str) -> None:
        """Confirm a consent by the mailed link, if one is sent."""
        if self._asks_nobody:
            return
        link = partial(self.link, address, "/opt-in/confirm")
        path = _await("the mail that asks to confirm the consent", link, 40)
        self.page(path, confirm="yes")

    def follow_up(self, address: str, delay_seconds: int) -> None:
        body = {"email": address, "delay_seconds": delay_seconds}
        due = self.call("POST", "/api/followups", body, key="service")["items"][0]["due_at"]
        if datetime.fromisoformat(due) > datetime.now(UTC) + timedelta(seconds=60):
            raise DemoError(f"the mail would leave at {due}: set FOLLOWUP_QUIET_HOURS=off in .env")

    def follow_ups(self, address: str) -> Any:
        return self.call("GET", f"/api/followups?email={address}", key="service")["items"]

    def behave(self, target: str, status: int) -> None:
        _fetch("PUT", f"{self._sandbox}/behaviour/{target}", body={"status": status})

    def received(self, target: str, about: str = "") -> list[Any]:
        got = json.loads(_fetch("GET", f"{self._sandbox}/received?target={target}"))
        return [one["body"] for one in got["received"] if about in str(one["body"])]

    def mails(self, address: str = "", subject: str = "") -> list[Any]:
        """Return the mails to this address with this in their subject, newest first."""
        api = f"{self._mail}/api/v1/message"
        listed = json.loads(_fetch("GET", f"{api}s?limit=500"))["messages"]
        return [
            json.loads(_fetch("GET", f"{api}/{mail['ID']}"))
            for mail in listed
            if address in str(mail["To"]) and subject in str(mail["Subject"])
        ]

    def link(self, address: str, path: str) -> str:
        """Return the link to this path from the newest mail to this address that has one."""
        for mail in self.mails(address):
            if found := re.search(rf"https?://\S+{path}\?token=[\w.~-]+", mail["Text"]):
                return _path(found[0])
        return ""

    def marketing(self, address: str) -> list[Message]:
        """Return the follow-ups that this address got, newest first, with all their headers."""
        raw = (f"{self._mail}/api/v1/message/{mail['ID']}/raw" for mail in self.mails(address))
        mails = [message_from_string(_fetch("GET", url)) for url in raw]
        return [mail for mail in mails if mail["List-Unsubscribe"]]

    def person(self) -> Callable[..., str]:
        """Return what opens pages of the console and sends their forms, as one person."""
        # The cookie is Secure, and the demo speaks http.
        policy = DefaultCookiePolicy(secure_protocols=("http", "https"))
        opener = build_opener(HTTPCookieProcessor(CookieJar(policy)))

        def page(path: str, **form: str) -> str:
            headers = {"Sec-Fetch-Site": "same-origin"}
            method, url = "POST" if form else "GET", self.gateway + path
            return _fetch(method, url, form=form, headers=headers, send=opener.open)

        return page


def _fetch(
    method: str,
    url: str,
    *,
    body: Any = None,
    form: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    send: Callable[..., Any] = urlopen,
) -> str:
    """:raises DemoError: it did not answer, or with an error"""
    data, kind = urlencode(form).encode() if form else None, {}
    if body is not None:
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = Request(url, data, kind | (headers or {}), method=method)
    try:
        with send(request, timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        raise DemoError(f"{method} {url} answered {error.code}: {said}") from None
    except OSError as error:
        raise DemoError(f"{method} {url}: {error}; is it running? (make up)") from None


def _await(what: str, ask: Callable[[], T], seconds: float) -> T:
    """Poll until the result is true.

    :raises DemoError: it did not become true in time
    """
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s for: {what}")
        time.sleep(0.1)
    return found


def _check(holds: object, what: str) -> None:
    if not holds:
        raise DemoError(f"not true: {what}")


def _clock() -> Callable[[], str]:
    began = time.monotonic()
    return lambda: f"{time.monotonic() - began:.1f} s"


def form(tell: Teller, world: World) -> str:
    """Return the address of the lead."""
    tell.step("form")
    _check("/widget.js" in world.site(), "the page has the script tag")
    shown = world.call("GET", "/api/forms/contact?language=en")
    (consent,) = shown["consents"]
    digest = hashlib.sha256(consent["text"].encode()).hexdigest()
    _check(digest == consent["sha256"], "the hash is that of the wording")
    time.sleep(4)  # whoever fills in a form within three seconds is taken for a robot
    ola = _person("ola")
    body = {
        "form": "contact",
        "form_version": shown["version"],
        "language": "en",
        "fields": {"name": "Ola", "email": ola, "message": "A bathroom of 8 m2, please."},
        "consents": {consent["purpose"]: digest},
        "notice_version": shown["notice"]["version"],
        "issued": shown["issued"],
        "agreed_at": datetime.now(UTC).isoformat(),
    }
    key = uuid.uuid4().hex
    took = _clock()
    first = world.submit(body, key)
    tell.does("Ola", "sends it; her train enters a tunnel, and the browser sends it again")
    _check(world.submit(body, key) == first, "the answer is the same")
    told = _await("the lead in Slack", partial(world.received, "slack", ola), 30)
    tell.holds(f"{took()} later in Slack, once: {told[0]['text']}")
    _check(len(world.received("slack", ola)) == 1, "the lead is reported once")
    return ola


def console(tell: Teller, world: World, ola: str) -> None:
    tell.step("console")
    invited = {"email": _person("kasia"), "name": KASIA, "roles": ["sales"], "show_link": True}
    invitation = world.call("POST", "/api/staff", invited, key="admin")
    kasia = world.person()
    kasia(urlsplit(invitation["link"]).path, password=secrets.token_urlsafe())
    tell.does("admin", "invites Kasia from sales; she opens the link and sets a password")
    try:
        (lead,) = world.call("GET", f"/api/leads?email={ola}", key="service")["items"]
        path = f"/console/leads/{lead['id']}"
        _check(path in kasia("/console/leads"), "her list has the lead")
        found = re.search(r'name="nonce" value="([^"]+)"', kasia(path))
        _check(found, "the lead can be taken")
        kasia(path, nonce=found[1] if found else "", answer="taken")
        tell.does("Kasia", "opens the lead and presses: I take it")
        told = _await("Slack is told", partial(world.received, "slack", KASIA), 30)
        tell.holds(f"nobody else is asked; Slack is told: {told[0]['text']}")
        acts = world.call("GET", "/api/actions", key="admin")["items"]
        _check(any("lead.look" in str(act) and KASIA in str(act) for act in acts), "it is recorded")
        tell.holds("the record has her name and each look, and no address")
    finally:  # no demo leaves an account
        ends = {"reason": "the demo is over"}
        world.call("POST", f"/api/staff/{invitation['id']}/disable", ends, key="admin")
    made = {"name": "demo", "purpose": "shows a key", "owner": KASIA, "scopes": ["leads:read"]}
    made["expires_at"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    key = world.call("POST", "/api/keys", made, key="admin")
    shown = f"{world.gateway}/api/leads/{lead['id']}"
    headers = {"X-API-KEY": key["key"]}
    _fetch("GET", shown, headers=headers)
    took = _clock()
    revoked = {"reason": "the demo is over"}
    world.call("POST", f"/api/keys/{key['id']}/revoke", revoked, key="admin")
    tell.does("admin", f"makes a key for a program, and revokes it: answered in {took()}")
    try:
        _fetch("GET", shown, headers=headers)
    except DemoError as error:
        _check("answered 401" in str(error), "a revoked key is unknown")
    else:
        raise DemoError("a revoked key still opens something")
    tell.holds("after this answer the key opens nothing: 401")


def lead(tell: Teller, world: World, anna: str) -> None:
    tell.step("chat")
    session = f"demo-{uuid.uuid4().hex}"
    # A new number: a known one would make her an existing lead.
    number = f"{600_000_000 + uuid.uuid4().int % 1_000_000}"
    message = (
        f"Hello, I would like my 80 m2 flat renovated, budget 250 000 zł, from March. {anna}, "
        f"{number}"
    )
    took = _clock()
    body = {"message": message, "session_id": session, "language": "en"}
    reply = world.call("POST", "/api/chatbot/chat", body)
    tell.does("Anna", message)
    tell.does("chatbot", reply["reply"])
    _check(len(reply["card"]) >= 5, "the card shows what was understood")
    asked = reply["ask"]
    agrees = {"ask": asked["id"], "choice": "yes", "wording": asked["wording"]["sha256"]}
    reply = world.call("POST", "/api/chatbot/chat", {"tap": agrees, "session_id": session})
    tell.does("Anna", "taps Yes")
    tell.does("chatbot", reply["reply"])
    slack, monday = (
        _await(f"the lead in {target}", partial(world.received, target, anna), 30)
        for target in ("slack", "monday")
    )
    tell.holds(f"{took()} later in Slack: {slack[0]['text']}")
    _check(len(slack) == len(monday) == 1, "the lead is reported once")
    tell.holds("Monday.com has an item for it; both got it exactly once")


def untaken(tell: Teller, world: World) -> None:
    tell.step("untaken")
    number = f"+48{600_000_000 + uuid.uuid4().int % 1_000_000}"
    case_id = world.alert("lead.test", **TEXTS["lead"], phone=number)
    took = _clock()
    first = _await("the lead in Slack", partial(world.received, "slack", number), 30)[0]
    tell.holds(f"Slack shows it, and nobody answers: {first['text']}")
    on_call = _asked(world, case_id, 0)
    sms = world.received("sms", ASKS)[-1]["message"]
    tell.holds(f"{took()}: an SMS to {on_call}, who is on call: {sms}")
    manager = _asked(world, case_id, 1)
    mail = world.mails(subject=ASKS)[0]["Text"]
    tell.holds(f"{took()}: a mail to {manager}, the manager: {mail}")
    path, other = _case_link(mail), _case_link(sms)
    page = world.page(path)
    _check(number not in page, "the page shows no contact data before somebody takes the lead")
    tell.does(manager, "opens the link and presses the button")
    form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page))
    page = world.page(path, **form, answer="taken")
    _check(number in page, "the page shows the number to whoever took the lead")
    tell.holds("answered 200; only now the page shows the lead's phone number")
    told = _await("Slack is told", partial(_told, world, "slack", case_id), 30)
    tell.holds(f"Slack is told: {told[-1]['text']}")
    if on_call == manager:  # nobody else was asked: the schedule has a gap
        return
    told = _await(f"{on_call} is told", partial(_told, world, "sms", case_id), 30)
    tell.holds(f"{on_call} is told: {told[-1]['message']}")
    _check("<button" not in world.page(other), "nobody else can take it any more")
    tell.holds(f"{on_call}'s link shows the same, and has no button any more")


def _asked(world: World, case_id: str, number: int) -> str:
    """Wait until this step of the case is delivered; return the person it asked."""

    def delivered() -> str:
        steps = world.call("GET", f"/api/cases/{case_id}", key="service")["steps"]
        found = steps[number : number + 1]
        return "".join(step["person"].title() for step in found if step["state"] == "delivered")

    return _await(f"step {number + 1} of the case", delivered, 40)


def _told(world: World, target: str, case_id: str) -> list[Any]:
    """Return the target's messages that say who took a case, once all of this one's are current."""
    places = world.call("GET", f"/api/cases/{case_id}", key="service")["places"]
    told = all(place["up_to_date"] for place in places if place["target"] == target)
    return world.received(target, TAKEN) if told else []


def _case_link(text: str) -> str:
    found = re.search(r"https?://\S+/a/[\w-]+", text)
    if found is None:
        raise DemoError(f"no link to take the lead: {text}")
    return urlsplit(found[0]).path


def outage(tell: Teller, world: World) -> None:
    tell.step("outage")
    world.behave("slack", 500)
    tell.does("Slack", "500, 500, 500 ...")
    mark = uuid.uuid4().hex[:6]
    texts = [f"Demo {mark}: alert {number}" for number in range(1, ALERTS + 1)]
    ids = [world.alert("slack_alert", text=text) for text in texts]
    tell.holds(f"{len(ids)} alerts sent in the meantime, all answered 202 Accepted")
    open_ones = _await("Slack's breaker opens", lambda: _open_breakers(world), 60)
    _check(open_ones == ["slack"], "no other breaker opens")
    tell.holds("GET /api/breakers: only Slack's breaker is open")
    took = _clock()
    other = world.alert("webhook", text=f"Demo {mark}: by another way")
    _await("the webhook's alert", lambda: _delivered(world, other), 20)
    tell.holds(f"an alert to the webhook was delivered in {took()}")
    ledger = world.call("GET", "/api/ledger/check", key="admin")
    _check(ledger["pending"] >= ALERTS, "the alerts wait in the ledger")
    tell.holds(f"the ledger has {ledger['pending']} pending alerts")

    tell.step("return")
    world.behave("slack", 200)
    took = _clock()
    world.call("POST", "/api/breakers/slack/reset", key="admin")
    tell.does("ops", "POST /api/breakers/slack/reset")

    def all_there() -> bool:
        return {str(one.get("text")) for one in world.received("slack")}.issuperset(texts)

    _await("all alerts in Slack", all_there, 90)
    for one in ids:
        _await("the ledger says delivered", partial(_delivered, world, one), 20)
    tell.holds(f"all {len(ids)} arrived within {took()}; none was lost")


def _open_breakers(world: World) -> list[str]:
    breakers = world.call("GET", "/api/breakers", key="admin")
    return [name for name, breaker in breakers.items() if breaker["state"] == "open"]


def _delivered(world: World, alert_id: str) -> bool:
    try:
        found = world.call("GET", f"/api/alerts/{alert_id}", key="service")
    except DemoError:  # 404: accepted, but not in the ledger yet
        return False
    return bool(found["state"] == "delivered")


def job(tell: Teller, world: World) -> None:
    tell.step("job")
    name = f"demo backup {uuid.uuid4().hex[:6]}"
    watched = {"name": name, "every": "1d", "grace": "1h", "severity": "critical"}
    made = world.call("POST", "/api/heartbeats", watched, key="admin")
    ping, took = urlsplit(made["url"]).path, _clock()
    try:
        world.page(f"{ping}/3")
        tell.does("cron", "opens the job's URL with /3: it ended with exit code 3")
        failed = partial(world.received, "slack", f"{name} failed with exit code 3")
        told = _await("the failure in Slack", failed, 30)
        tell.holds(f"{took()} later in Slack, with a case: {told[0]['text']}")
        world.page(ping)
        tell.does("cron", "opens the URL alone: the next run is well")
        over = partial(world.received, "slack", f"{name} is back")
        tell.holds(f"Slack is told: {_await('the recovery in Slack', over, 30)[0]['text']}")
        shown = world.call("GET", f"/api/heartbeats/{made['id']}", key="admin")
        _check(shown["state"] == "up", "the heartbeat is up")
        _check(shown["alert_id"] is None, "its alert and its case are over")
    finally:
        world.call("DELETE", f"/api/heartbeats/{made['id']}", key="admin")


def follow_up(tell: Teller, world: World, anna: str) -> str:
    """Return the unsubscribe link in Anna's mail."""
    tell.step("follow_up")
    world.confirm(anna)
    tell.does("Anna", "confirms her consent with the mailed link")
    took = _clock()
    world.follow_up(anna, 0)
    mail = _await("the follow-up's mail", lambda: world.marketing(anna), 40)[0]
    subject = make_header(decode_header(mail["Subject"]))
    tell.holds(f'Anna gets a mail after {took()}: "{subject}"')
    link = re.search(r"<(https?://[^>]+)>", mail["List-Unsubscribe"])
    if link is None or mail["List-Unsubscribe-Post"] != "List-Unsubscribe=One-Click":
        raise DemoError("the mail does not offer one-click unsubscribe")
    tell.holds("her mail program offers one-click unsubscribe (RFC 8058)")
    return _path(link[1])


def _path(link: str) -> str:
    """Drop the host: the gateway's address here may differ from the one in mails."""
    return "{0.path}?{0.query}".format(urlsplit(link))


def withdrawal(tell: Teller, world: World, anna: str, path: str) -> None:
    tell.step("withdrawal")
    tell.does("Anna", "one click")
    world.page(path, **{"List-Unsubscribe": "One-Click"})

    def stopped() -> Any:
        rest = world.follow_ups(anna)[1:]
        return [one for one in rest if one["status"] == "cancelled"] == rest and rest

    rest = _await("the rest of her sequence is cancelled", stopped, 20)
    tell.holds(f"answered 200; her next mail is cancelled: {rest[0]['reason']}")

    marek, piotr = _person("marek"), _person("piotr")
    for person in (marek, piotr):
        world.opt_in(person)
        world.follow_up(person, 3)
    tell.does("system", "follow-ups to Marek and to Piotr, both due in 3 seconds")
    world.call("POST", "/api/unsubscribe", {"email": piotr})
    tell.does("Piotr", "unsubscribes before")
    _await("Marek's mail", lambda: world.marketing(marek), 40)
    _await("Piotr's is cancelled", lambda: world.follow_ups(piotr)[0]["status"] == "cancelled", 20)
    _check(not world.marketing(piotr), "Piotr has no follow-up")
    _check(len(world.marketing(anna)) == 1, "Anna has no second one")
    tell.holds("Marek has his mail; Piotr got none, and Anna got no second one")


def erasure(tell: Teller, world: World, anna: str) -> None:
    tell.step("erasure")
    audit = f"/api/consent/audit/{anna}"
    entries = world.call("GET", audit, key="admin")["entries"]
    tell.does("auditor", "Anna's trail: " + ", ".join(one["action"] for one in entries))
    _check(entries, "there is a trail")
    world.call("POST", "/api/revoke-consent", {"email": anna})
    tell.does("Anna", "revokes everything; a mail asks her to confirm the erasure")
    path = _await("the mail with the link", lambda: world.link(anna, "/erasure/confirm"), 40)
    world.page(path)
    _check(world.call("GET", audit, key="admin")["entries"], "opening the page changes nothing")
    world.page(path, confirm="yes")
    tell.does("Anna", "follows the link and presses the button")
    _await("every service has erased her", lambda: _forgotten(world, audit), 40)
    tell.holds("erased in every service; the key to her rows is destroyed")
    verified = world.call("GET", "/api/consent/audit/verify", key="admin")
    _check(verified["ok"], "the trail verifies")
    tell.holds(f"the chain of all {verified['rows']} rows still verifies")


def _forgotten(world: World, audit: str) -> bool:
    found = world.call("GET", audit, key="admin")
    return bool(found["erasure"]["status"] == "done" and not found["entries"])


ACCOUNTS = (
    ("ledger", "accepted", ("delivered", "pending", "failed", "discarded", "in_doubt")),
    ("cases", "opened", ("open", "answered", "unanswered", "cancelled")),
)


def accounts(tell: Teller, world: World) -> None:
    tell.step("accounts")
    for name, whole, parts in ACCOUNTS:
        found = world.call("GET", f"/api/{name}/check", key="admin")
        tell.does(name, f"{whole} {found[whole]} =")
        tell.does("", " + ".join(f"{part} {found[part]}" for part in parts))
        _check(found[whole] == sum(found[part] for part in parts), f"{name}: it adds up")
        _check(found["stranded"] == 0, f"{name}: nothing is stranded")
        tell.holds(TEXTS["accounts"][name])


def _person(name: str) -> str:
    return f"{name}.{uuid.uuid4().hex[:4]}@example.com"


def main() -> int:
    tell = Teller()
    print(tell.styled("1", "Ostoja on the running system; each ok has just been checked."))
    anna = _person("anna")
    world = None
    began = time.monotonic()
    try:
        world = World()
        ola = form(tell, world)
        console(tell, world, ola)
        lead(tell, world, anna)
        untaken(tell, world)
        outage(tell, world)
        job(tell, world)
        link = follow_up(tell, world, anna)
        withdrawal(tell, world, anna, link)
        erasure(tell, world, anna)
        accounts(tell, world)
    except DemoError as error:
        print("\n" + tell.styled("1;31", f"FAILED: {error}"), file=sys.stderr)
        return 1
    finally:
        if world is not None:
            with suppress(DemoError):  # the first error says more
                world.behave("slack", 200)
    print(f"\nDone in {time.monotonic() - began:.0f} s. {world.public}/docs describes every call.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
