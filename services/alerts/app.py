"""The wiring: read down for the order of starting, up for the order of stopping."""

import os
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import periodic, postgres, schema_version
from libs.common.health import HealthRoute
from libs.common.http import application, server
from libs.common.messaging import consumer, outbox
from libs.common.messaging.broker import Broker
from libs.common.messaging.rpc import Requester
from libs.common.process.logs import log
from libs.common.process.service import Service
from libs.domain import company
from libs.domain.signed_links import Tokens, parse_keys
from services.alerts import topology
from services.alerts.cases import timer
from services.alerts.cases.answers import Answers
from services.alerts.cases.heartbeats import PREFETCH as PINGS_PREFETCH
from services.alerts.cases.heartbeats import Heartbeats
from services.alerts.cases.on_call import POLL_SECONDS, Schedules
from services.alerts.cases.timer import Timer, Updates
from services.alerts.channels.slack import SlackTarget
from services.alerts.config import rota
from services.alerts.config import targets as config
from services.alerts.config.targets import Config
from services.alerts.delivery.events import PREFETCH as EVENTS_PREFETCH
from services.alerts.delivery.events import Events
from services.alerts.delivery.permits import LoopLag, Permits
from services.alerts.delivery.running import Subscriptions, Targets
from services.alerts.http.case_pages import CasePages
from services.alerts.http.cases import CaseRoutes
from services.alerts.http.dlq import DlqRoutes
from services.alerts.http.heartbeats import HeartbeatRoutes
from services.alerts.http.intake import IntakeRoutes
from services.alerts.http.on_call import OnCallRoutes
from services.alerts.http.operations import OperationsRoutes
from services.alerts.http.silences import SilenceRoutes
from services.alerts.http.slack import SlackRoutes
from services.alerts.http.subscriptions import SubscriptionRoutes
from services.alerts.intake import PREFETCH, Intake
from services.alerts.messages import HEARTBEAT_MISSED
from services.alerts.rules.case import Links
from services.alerts.rules.subjects import Subjects
from services.alerts.settings import AlertsSettings
from services.alerts.store.incidents import Pace
from services.alerts.store.schema import MIGRATIONS, Schema
from services.alerts.targets.status import TargetStatus
from services.alerts.upkeep import retention
from services.alerts.upkeep.digests import Digests
from services.alerts.upkeep.ledger_check import LedgerCheck
from services.alerts.upkeep.privacy import Privacy
from services.alerts.upkeep.reconcile import Reconciler
from services.alerts.upkeep.subscriptions import SubscriptionUpkeep

RETENTION_SECONDS = 3600.0
MONITOR_SECONDS = 60.0
FOLLOW_SECONDS = 2.0
SEND_ON_SECONDS = 1.0
MAX_INTERNAL_BODY = 1024 * 1024  # the gateway's largest batch, with the fields that it adds


async def start(service: Service, settings: AlertsSettings) -> None:
    configured, templates = config.load(settings.alerts_config, os.environ)
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(
        postgres.connect(database_url, application_name=service.name, pool_size=20)
    )
    owner_url = settings.owner_url
    await schema_version.require(service, engine, MIGRATIONS, may_lack=owner_url is not None)
    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(
        *topology.EXCHANGES,
        *topology.intake_queues(),
        *topology.data_subject_queues(),
        *topology.target_queues(configured.targets),
    )
    service.spawn("outbox relay", outbox.Relay(engine, broker, database_url).run())

    lag = LoopLag()
    permits = Permits(await service.enter(Requester(broker, service.name)), lag)

    rotas = rota.load(configured, settings.alerts_config.parent)
    schedules = Schedules(engine, rotas, configured.rules.people)
    await schedules.begin()
    rules = replace(
        configured.rules,
        people=schedules.people,
        on_call=schedules.person,
        rota=schedules.on_rota,
        links=_links(settings),
    )
    targets = Targets(engine, broker, templates, rules, permits, settings.alerts_backlog_per_second)
    breakers, throttles = targets.breakers, targets.throttles
    names = frozenset(configured.targets)
    for name, target in list(configured.targets.items()):
        await targets.start(service, name, target, settings.alerts_private_networks)
    networks = settings.subscriptions_private_networks
    if networks:
        log.warning("subscriptions.private_networks", networks=list(map(str, networks)))
    subscriptions = Subscriptions(targets, configured.targets, networks)
    await service.enter(aclosing(subscriptions))

    target_status = TargetStatus(engine, breakers, throttles, configured.settings)
    await service.enter(target_status.membership())
    service.spawn("target status", target_status.run())

    subjects = Subjects(settings.alerts_subject_keys.get_secret_value())
    intake = Intake(configured, engine, broker, subjects, rules, target_status.sharing)
    await service.enter(
        consumer.Consumer(broker, topology.INTAKE_QUEUE, intake.handle, prefetch=PREFETCH)
    )

    events = Events(engine, subjects)
    heartbeats = Heartbeats(engine, rules, intake, broker.depths)
    payloads_kept = settings.alerts_payload_kept_days * 86400.0
    privacy = Privacy(engine, broker, subjects, kept=payloads_kept)
    for queue, handler, prefetch in (
        (topology.PINGS_QUEUE, heartbeats.handle, PINGS_PREFETCH),
        (topology.OCCURRED_QUEUE, events.handle, EVENTS_PREFETCH),
        (topology.ERASURES_QUEUE, privacy.erasures, 1),
        (topology.REQUESTS_QUEUE, privacy.requests, 1),
    ):
        await service.enter(consumer.Consumer(broker, queue, handler, prefetch=prefetch))

    reconciler = Reconciler(
        configured,
        engine,
        broker,
        throttles,
        overdue=settings.alerts_overdue_seconds,
        fallback_after=settings.alerts_fallback_seconds,
    )
    ledger_check = LedgerCheck(
        engine, reconciler, throttles, overdue=settings.alerts_overdue_seconds
    )
    monitor = partial(ledger_check.tell, settings.heartbeat_url)
    digests = _digests(engine, intake, reconciler, partial(rota.faults, rotas), settings)
    subscribed = SubscriptionUpkeep(engine, intake, configured.targets, settings.escalation_email)
    purge = partial(
        retention.run,
        engine,
        delivered=settings.alerts_delivered_kept_hours * 3600.0,
        payloads=payloads_kept,
    )
    reconciling, escalating = settings.alerts_reconcile_seconds, settings.alerts_escalation_seconds
    for name, seconds, on_each, job in (
        ("schedules", POLL_SECONDS, True, schedules.refresh),
        ("subscriptions", FOLLOW_SECONDS, True, subscriptions.follow),
        # Also without a policy: cases may be open that an earlier configuration opened.
        ("case timer", timer.POLL_SECONDS, True, Timer(engine, rules, names).run),
        ("case updates", timer.POLL_SECONDS, True, Updates(engine, names).run),
        ("heartbeats", timer.POLL_SECONDS, True, heartbeats.run),
        ("alerts subscriptions", SEND_ON_SECONDS, False, subscribed.send_on),
        ("alerts owners", escalating, False, subscribed.look_after),
        ("alerts reconcile", reconciling, False, reconciler.run),
        ("alerts fallback", reconciling / 6, False, reconciler.fall_back),
        ("alerts digests", escalating, False, digests.run),
        ("alerts monitor", min(MONITOR_SECONDS, 2 * reconciling), False, monitor),
        ("alerts refusals", reconciling / 6, False, digests.run_at_once),
        ("alerts retention", RETENTION_SECONDS, False, purge),
        ("alerts subjects", RETENTION_SECONDS, False, privacy.upkeep),
    ):
        service.spawn(name, periodic.every(engine, name, seconds, job, on_each=on_each))

    app = application.create_app(
        internal_key=settings.internal_api_key.get_secret_value(), max_body=MAX_INTERNAL_BODY
    )
    app.middlewares.append(application.unavailable_when(postgres.is_transient))
    operations = OperationsRoutes(
        engine,
        reconciler,
        target_status,
        throttles,
        Schema(engine, database_url, owner_url),
        ledger_check,
        schedules,
    )
    for routes in (
        IntakeRoutes(engine, intake),
        DlqRoutes(engine, intake, configured.targets),
        SubscriptionRoutes(engine, networks),
        OnCallRoutes(engine, schedules),
        operations,
        HealthRoute(
            operations.health, service.name, settings, broker, MIGRATIONS, (operations.findings,)
        ),
        CaseRoutes(Answers(engine, rules)),
        SilenceRoutes(engine, configured),
        HeartbeatRoutes(
            heartbeats,
            Tokens(keys) if (keys := settings.ping_keys.get_secret_value()) else None,
            settings.public_base_url.rstrip("/"),
            routed=bool(configured.route(HEARTBEAT_MISSED, None)),
        ),
        CasePages(
            Answers(engine, rules),
            company.style_of(settings.company_config),
            company.name_of(settings.company_config),
        ),
        SlackRoutes(
            Answers(engine, rules), _apps(configured), templates, settings.alerts_private_networks
        ),
    ):
        routes.add_to(app)
    service.spawn("loop lag", lag.watch())
    service.spawn("ledger check", ledger_check.watch(reconciling / 2))
    await server.serve_all(service, app, settings)


def _apps(configured: Config) -> dict[str, SlackTarget]:
    return {
        name: each
        for name, each in configured.targets.items()
        if isinstance(each, SlackTarget) and each.team
    }


def _links(settings: AlertsSettings) -> Links:
    keys = parse_keys(settings.alerts_subject_keys.get_secret_value())
    return Links(next(iter(keys.values())), settings.public_base_url.rstrip("/"))


def _digests(
    engine: AsyncEngine,
    intake: Intake,
    reconciler: Reconciler,
    rota_faults: Callable[[], Mapping[str, str]],
    settings: AlertsSettings,
) -> Digests:
    if unknown := [name for name in settings.escalate_by if name not in reconciler.config.targets]:
        raise SystemExit(f"ESCALATE_BY: no target is named {', '.join(unknown)}")
    return Digests(
        engine,
        intake,
        reconciler,
        rota_faults,
        to=settings.escalation_email,
        by=settings.escalate_by,
        base_url=settings.public_base_url.rstrip("/"),
        pending=settings.alerts_incident_pending,
        pace=Pace(
            after=settings.alerts_incident_seconds,
            repeat=settings.alerts_incident_repeat_seconds,
            pause=settings.alerts_escalation_seconds,
        ),
    )
