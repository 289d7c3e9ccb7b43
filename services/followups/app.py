"""The wiring: read down for the start order, up for the stop order."""

import asyncio
from functools import partial
from pathlib import Path

from libs.common import health
from libs.common.database import periodic, postgres, schema_version
from libs.common.health import HealthRoute
from libs.common.http import application, server
from libs.common.messaging import consumer, inbox, outbox
from libs.common.messaging.broker import Broker
from libs.common.messaging.rpc import Requester
from libs.common.process.service import Service
from libs.domain import forms
from libs.domain.signed_links import Tokens, parse_keys
from services.followups import config, retention, topology
from services.followups.consumers import Consumers
from services.followups.http.acts import ActRoutes
from services.followups.http.chat import ChatRoutes
from services.followups.http.chat_page import ChatPage
from services.followups.http.followups import FollowupRoutes
from services.followups.http.leads import LeadRoutes
from services.followups.http.mail import AT_ONCE, MailRoutes
from services.followups.http.model import Model
from services.followups.http.submissions import SubmissionRoutes
from services.followups.inbox.acting import Inbox
from services.followups.inbox.mailbox import PERIOD, Mailbox
from services.followups.leads import submissions
from services.followups.leads.acts import Acts
from services.followups.leads.imports import Consent
from services.followups.leads.staff import Announcer
from services.followups.leads.submissions import Submissions
from services.followups.mails.compose import Mails
from services.followups.mails.marks import Marks
from services.followups.mails.scheduler import POLL_SECONDS, Scheduler
from services.followups.settings import FollowupsSettings
from services.followups.store.submissions import Erased

MIGRATIONS = Path(__file__).parent / "migrations"
PREFETCH = 20
PURGE_SECONDS = 3600


async def start(service: Service, settings: FollowupsSettings) -> None:
    known_forms = forms.load(settings.forms_config)
    configured = config.load(
        settings.followups_config,
        settings.company_config,
        known_forms,
        quiet_hours=settings.followup_quiet_hours,
    )
    submissions.check(known_forms, configured)
    token_keys = settings.token_keys.get_secret_value()
    tokens = Tokens(token_keys)
    marks = Marks(token_keys, settings.bounce_address)
    has_marks = bool(settings.bounce_address)
    mails = Mails(configured, tokens, settings.public_base_url, marks if has_marks else None)
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(postgres.connect(database_url, application_name=service.name))
    await schema_version.require(service, engine, MIGRATIONS)
    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(*topology.EXCHANGES, *topology.QUEUES)

    relay = outbox.Relay(engine, broker, database_url)
    service.spawn("outbox relay", relay.run())
    page_of = f"{settings.public_base_url.rstrip('/')}/console/leads/{{}}".format
    erased = Erased(parse_keys(token_keys).values())
    leads = Submissions(engine, configured, known_forms, page_of, erased)
    consumers = Consumers(engine, broker, leads)
    for queue, handler in (
        (topology.LEADS_QUEUE, consumers.leads),
        (topology.REQUESTS_QUEUE, consumers.requests),
        (topology.CONSENT_QUEUE, consumers.consent_events),
        (topology.OUTCOMES_QUEUE, consumers.outcomes),
    ):
        await service.enter(consumer.Consumer(broker, queue, handler, prefetch=PREFETCH))
    requester = await service.enter(Requester(broker, service.name))
    scheduler = Scheduler(engine, configured, mails, settings.followup_max_per_day)
    announcer = Announcer(engine, configured, page_of)
    for name, run in (("scheduler", scheduler.run), ("announcer", announcer.run)):
        service.spawn(name, periodic.every(engine, name, POLL_SECONDS, run, on_each=True))
    returned = Inbox(engine, configured, page_of, marks)
    kept, suspected = settings.conversation_retention_days, settings.lead_suspect_days
    for name, act in (
        ("inbox purge", partial(inbox.purge, engine)),
        ("retention", partial(retention.forget, engine, kept)),
        ("unknown outcomes", partial(retention.doubt, engine)),
        ("suspected leads", partial(retention.forget_suspected, engine, suspected)),
        ("mail digest", returned.tell_of_the_rest),
    ):
        service.spawn(name, periodic.every(engine, f"followups {name}", PURGE_SECONDS, act))
    if url := settings.inbox_url.get_secret_value():
        mailbox = Mailbox(url, returned, is_shared=settings.inbox_shared)
        service.spawn("mailbox", periodic.every(engine, "followups mailbox", PERIOD, mailbox.look))

    app = application.create_app(internal_key=settings.internal_api_key.get_secret_value())
    app.middlewares.append(application.unavailable_when(postgres.is_transient))
    look = partial(health.with_outbox, engine, broker)
    model = settings.chat_model_url and Model(
        settings.chat_model_url, settings.chat_model, settings.chat_model_key, configured.kinds
    )
    chat_routes = ChatRoutes(engine, configured, page_of, model or None)
    lead_routes = LeadRoutes(engine, configured, page_of, Consent(requester, erased))
    for routes in (
        chat_routes,
        ChatPage(chat_routes, configured),
        FollowupRoutes(engine, configured, mails),
        MailRoutes(returned, asyncio.Semaphore(AT_ONCE)),
        SubmissionRoutes(leads),  # before the routes of `{id}`
        lead_routes,
        ActRoutes(Acts(engine, configured, page_of), lead_routes),
        HealthRoute(look, service.name, settings, broker, MIGRATIONS),
    ):
        routes.add_to(app)
    await server.serve_all(service, app, settings)
