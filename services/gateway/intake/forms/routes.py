"""The lead forms: their description, their page, and what is sent with them.

A submission is checked for origin, limits, shape, wordings and robots; then `lead.submit` goes to
followups, under an id that was fixed before. A lead is answered only once it is confirmed there.
"""

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import hdrs, web

from libs.common.http import plain_form
from libs.common.http.application import JSON, Problem, json_response, media_type, there, validate
from libs.common.messaging.broker import Message
from libs.common.process import logs
from libs.domain import mistyped
from libs.domain.company import split_pair
from libs.domain.forms import LANGUAGES, Form, Forms, Read, origin_of
from services.gateway import metrics
from services.gateway.door.access import CONTEXT, IDEMPOTENCY_KEY, too_many
from services.gateway.door.body_budget import BodyBudget
from services.gateway.door.budgets import Budgets
from services.gateway.door.clients import Role, bucket_of, network_of
from services.gateway.door.limits import Decision, Limiter, Window
from services.gateway.intake.forms import pages, submission
from services.gateway.intake.forms.robots import Robots
from services.gateway.intake.idempotency import Idempotency, key_of
from services.gateway.intake.relayed import Relayed
from services.gateway.pages.files import language_of
from services.gateway.proxy.forward import readable

SHORTEST_KEY = 16
ROUTE = "/api/leads"
PROOF = "X-Proof"
"""A header, not part of the body: a new solution leaves the body of a key unchanged."""
APART = Window("suspected", 300, 3600)
"""What all forms together may keep apart: at most 100,000 rows in LEAD_SUSPECT_DAYS (14)."""


@dataclass(kw_only=True, eq=False)
class FormRoutes:
    forms: Forms
    public_base_url: str
    body_budget: BodyBudget
    relayed: Relayed
    idempotency: Idempotency
    limiter: Limiter
    budgets: Budgets
    robots: Robots
    grace: timedelta
    shadow: bool

    def __post_init__(self) -> None:
        self._own_origin = origin_of(self.public_base_url)
        first = next(iter(self.forms), None)
        self.contact = first and f"{self.public_base_url.rstrip('/')}/forms/{first}"
        """The page that takes a visitor's contact where a budget is spent."""
        self._limits = {
            name: (
                Window.parse("address", form.limits.address),
                Window.parse("form", form.limits.form),
            )
            for name, form in self.forms.items()
        }

    async def describe(self, request: web.Request) -> web.Response:
        """Return a form in one language, with the wordings that are shown today."""
        name = request.match_info["form"]
        form = self._form(name)
        language = request.query.get("language", LANGUAGES[0])
        if language not in LANGUAGES:
            raise Problem(422, errors=[("language", f"must be one of {', '.join(LANGUAGES)}")])
        return json_response(
            {
                "form": name,
                "version": form.version,
                "language": language,
                "title": form.title[language],
                "fields": [
                    {
                        **submission.picked(field, "name", "type", "required"),
                        "label": field.label and field.label[language],
                        "max_length": field.most,
                        "options": [
                            {"value": option.value, "label": option.label[language]}
                            for option in field.options
                        ],
                    }
                    for field in form.fields
                ],
                "consents": [
                    submission.picked(wording, "purpose", "version", "sha256", "text")
                    for wording in form.shown(language, datetime.now(UTC).date())
                ],
                "notice": {
                    "version": form.notice.version,
                    "url": form.notice.url[language],
                    "text": form.notice.text[language],
                },
                "trap": form.trap,
                "issued": self.robots.issued(name, form),
                "challenge": self.robots.challenge(name, form),
            }
        )

    async def page(self, request: web.Request) -> web.Response:
        name = request.match_info["form"]
        form = self._form(name)
        return pages.show(
            name,
            form,
            language_of(request, "language"),
            datetime.now(UTC).date(),
            key=secrets.token_urlsafe(16),
            issued=self.robots.issued(name, form),
        )

    async def privacy(self, request: web.Request) -> web.Response:
        """Redirect to the information of Art. 13 GDPR, for a chat whose page names none."""
        form = next(iter(self.forms.values()), None)
        if form is None:
            raise Problem(404, detail="forms.toml has no form whose notice says where")
        location = form.notice.url[language_of(request, "language")]
        return web.Response(status=302, headers={hdrs.LOCATION: location})

    async def post(self, request: web.Request) -> web.Response:
        kind = media_type(request.headers)
        if kind == JSON:
            return await self._post_json(request)
        if kind in plain_form.TYPES:
            return await self._post_plain(request)
        kinds = " or ".join(sorted({JSON, *plain_form.TYPES}))
        raise Problem(415, detail=f"the content type must be {kinds}")

    async def _post_json(self, request: web.Request) -> web.Response:
        key = key_of(request)
        if key is None or len(key) < SHORTEST_KEY:
            raise Problem(
                422, errors=[(IDEMPOTENCY_KEY, f"must have {SHORTEST_KEY} characters or more")]
            )
        body = await self._body(request)
        given = validate(body, submission.LeadRequest).submission(key, body)
        given.proof = request.headers.get(PROOF)
        form = self._form(given.form)
        self._check_origin(request, form)
        await self._check_limits(request, given.form)
        found = self._read(form, given)
        if found.faults:
            texts = pages.FAULTS[given.language]
            errors = [(f"fields.{at}", texts[fault]) for at, fault in found.faults.items()]
            raise Problem(422, detail="one or more fields are invalid", errors=errors)
        self._check_evidence(request, given)
        async with self.idempotency.once(
            key, route=ROUTE, holder=f"form:{given.form}", body=body
        ) as claim:
            if claim.result is None:
                await self._check_proof(request, form, given, self.robots.has_solved)
                answer = {
                    "id": str(given.lead_id),
                    "status": "accepted",
                    "consents_not_recorded": await self._take(request, form, given, found),
                }
                claim.keep = json.dumps(answer).encode()
        return web.Response(
            body=claim.result or claim.keep, status=202, content_type=JSON, charset="utf-8"
        )

    async def _post_plain(self, request: web.Request) -> web.Response:
        """Take what a browser posts; faults are shown on our page, which keeps what was written."""
        now = datetime.now(UTC)
        body = submission.posted(await self._body(request), request.headers[hdrs.CONTENT_TYPE])
        given = submission.of_plain_form(body, language_of(request), now.date().isoformat())
        form = self._form(given.form)
        self._check_origin(request, form)
        if form.trap is not None:
            given.trap = given.fields.pop(form.trap, None)
        given.page = submission.without_query(request.headers.get(hdrs.REFERER))
        found, address = Read({}, {}, {}), ""
        words = pages.WORDS[given.language]
        try:
            await self._check_limits(request, given.form)
            found = self._read(form, given)
            address = found.facts.get("email", "")
            if not found.faults and mistyped.suggestion(address) and given.sure != address:
                asked = next(each for each in form.fields if each.fact == "email")
                found.faults[asked.name] = "slip"
            if found.faults:
                raise Problem(422)  # noqa: TRY301 - shown as the others are
            await self._check_proof(request, form, given, self.robots.has_confirmed)
            await self._take(request, form, given, found)
        except Problem as problem:
            message = words["unknown" if problem.status >= 500 else "faults"]
            if problem.errors:
                message = words["confirm"]
            if problem.status == 429:
                seconds = int(problem.headers[hdrs.RETRY_AFTER])
                wait = f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} min"
                message = words["too_many"].format(wait=wait)
            strange = [at for at in found.faults if form.field(at) is None]
            if strange:  # for the developer of the page: a visitor cannot mend it
                message += f" ({', '.join(strange)}: {pages.FAULTS[given.language]['unknown']})"
            return pages.show(
                given.form,
                form,
                given.language,
                now.date(),
                status=problem.status,
                values=given.fields,
                consents=given.consents,
                faults=found.faults,
                message=message,
                key=body.get("key"),
                issued=given.issued,
                sure=address if "slip" in found.faults.values() else None,
                proof=self.robots.confirmation(given.form, form),
                headers=problem.headers,
            )
        location = form.success[given.language]
        return web.Response(status=303, headers={hdrs.LOCATION: location})

    async def _body(self, request: web.Request) -> bytes:
        if (request.content_length or 0) <= submission.MOST_BYTES:
            body = await self.body_budget.read(request)
            if len(body) <= submission.MOST_BYTES:
                return body
        raise Problem(413, detail=f"the body is larger than {submission.MOST_BYTES} bytes")

    def _form(self, name: str) -> Form:
        return there(self.forms.get(name), "form")

    def _check_origin(self, request: web.Request, form: Form) -> None:
        """Keep other sites' pages out; this does not authenticate a program.

        :raises Problem: 403
        """
        if request[CONTEXT].client.role is Role.SERVICE:
            return
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and (
            origin in form.origins
            or origin == self._own_origin
            or (origin == "null" and form.null_origin)
        ):
            return
        raise Problem(
            403,
            detail="this form takes nothing from pages of this origin (`origins` in forms.toml)",
        )

    async def _check_limits(self, request: web.Request, name: str) -> None:
        """:raises Problem: 429"""
        client = request[CONTEXT].client
        if client.role is Role.SERVICE:
            return
        address, _ = self._limits[name]
        wide = f"form:{name}:{network_of(client.ip)}" if ":" in client.ip else None
        key = f"form:{name}:{bucket_of(client.ip)}"
        decision = await self.limiter.decide("form", key, (address,), wide)
        if not (decision.admitted or self.shadow):
            raise _too_many(request, name, decision)

    def _read(self, form: Form, given: submission.Submission) -> Read:
        found = form.read(given.fields, given.form_version)
        if given.form_version in {None, form.version}:
            for purpose in given.consents:
                if purpose not in form.purposes:
                    found.faults[f"consent.{purpose}"[:60]] = "unknown"
        if found.faults:
            metrics.LEADS.labels(given.form, "none", "invalid").inc()
        return found

    async def _check_proof(
        self,
        request: web.Request,
        form: Form,
        given: submission.Submission,
        proves: Callable[[submission.Submission], Awaitable[bool]],
    ) -> None:
        """:raises Problem: 422"""
        if form.proof == "off" or request[CONTEXT].client.role is Role.SERVICE:
            return
        if not await proves(given):
            metrics.LEADS.labels(given.form, "none", "unproved").inc()
            raise Problem(
                422, errors=[(PROOF, "must solve the `challenge` of GET /api/forms/{form}")]
            )

    def _check_evidence(self, request: web.Request, given: submission.Submission) -> None:
        """Ask a program for what a browser shows by itself.

        :raises Problem: 422
        """
        if request[CONTEXT].client.role is not Role.SERVICE:
            given.source = None
        elif given.consents and (given.agreed_at is None or given.source is None):
            missing = "agreed_at" if given.agreed_at is None else "source"
            raise Problem(422, errors=[(missing, "with the service key, a consent needs this")])
        else:
            given.source = given.source or "program"

    async def _take(
        self, request: web.Request, form: Form, given: submission.Submission, found: Read
    ) -> list[str]:
        """Hand the lead over; return the purposes of which no consent is recorded.

        :raises Problem: 503, the outcome is unknown
        """
        now = datetime.now(UTC)
        wordings, missing = form.published(given.consents, now.date(), self.grace)
        unreachable = [  # no one to mail, or to call
            each for each in wordings if split_pair(each.purpose)[1] not in found.facts
        ]
        missing += [each.purpose for each in unreachable]
        wordings = [each for each in wordings if each not in unreachable]
        if missing:
            metrics.CONSENTS_NOT_RECORDED.labels(given.form).inc(len(missing))
        given.form_version = given.form_version or form.version
        client = request[CONTEXT].client
        by_key = client.role is Role.SERVICE
        suspicion = self.robots.suspicion(form, given, self.grace)
        suspicion, charge = await self._charge(request, given.form, None if by_key else suspicion)
        agent = request.headers.get(hdrs.USER_AGENT)
        agent = agent and readable(agent)
        body = given.message(found, wordings, missing, suspicion, client, agent, now)
        outcome = "suspected" if suspicion else "accepted"
        try:
            way = await self.relayed.hand_over(
                Message(body["id"], submission.LEAD_SUBMIT, body, logs.request_id.get() or "")
            )
        except Problem as problem:
            metrics.LEADS.labels(given.form, "none", "unknown").inc()
            await self.budgets.settle(charge, problem.status)  # its repetition is charged again
            raise
        metrics.LEADS.labels(given.form, way, outcome).inc()
        return missing

    async def _charge(
        self, request: web.Request, name: str, suspicion: str | None
    ) -> tuple[str | None, Decision | None]:
        """Charge a lead to its form, or to what is kept apart if that is spent or it is suspected.

        :returns: why it is kept apart, and the charge
        :raises Problem: 429
        """
        client = request[CONTEXT].client
        if suspicion is None:
            whole = self._limits[name][1]
            charge = await self.budgets.charge(client, "form_budget", whole, f"form:{name}")
            if charge is None or charge.admitted:
                return None, charge
        charge = await self.budgets.charge(client, "suspected_budget", APART)
        if charge is not None and not charge.admitted:
            raise _too_many(request, name, charge)
        return suspicion or "busy", charge


def _too_many(request: web.Request, name: str, decision: Decision) -> Problem:
    metrics.LEADS.labels(name, "none", "limited").inc()
    request[CONTEXT].decision = decision
    return too_many(request)


def origins_of(forms: Forms) -> set[str]:
    """Return the origins of all forms, for CORS; the form itself is checked by `_check_origin`."""
    found = {origin for form in forms.values() for origin in form.origins}
    return found | ({"null"} if any(form.null_origin for form in forms.values()) else set())
