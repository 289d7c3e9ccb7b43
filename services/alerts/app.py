"""The wiring: read down for the order of starting, up for the order of stopping."""

import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common.database import periodic, postgres, schema_version
from libs.common.health import HealthRoute
from libs.common.http import application, server
from libs.common.messaging import consumer, outbox
from libs.common.messaging.broker import Broker
from libs.common.messaging.rpc import Requester
from libs.common.process import certificate_ends, logs
from libs.common.process.service import Service
from libs.domain import company
from libs.domain.signed_links import Tokens, parse_keys
from services.alerts import channels, topology
from services.alerts.cases import timer
from services.alerts.cases.answers import Answers
from services.alerts.cases.heartbeats import PREFETCH as PINGS_PREFETCH
from services.alerts.cases.heartbeats import Heartbeats
from services.alerts.cases.on_call import POLL_SECONDS, Schedules
from services.alerts.cases.timer import Timer
from services.alerts.cases.updates import Updates
from services.alerts.channels.slack import SlackTarget
from services.alerts.config import targets as config
from services.alerts.config.rota import Rotas
from services.alerts.config.targets import Config
from services.alerts.delivery.at_most_once import AtMostOnceWorker
from services.alerts.delivery.permits import LoopLag, Permits
from services.alerts.delivery.worker import Worker
from services.alerts.http.case_pages import CasePages
from services.alerts.http.cases import CaseRoutes
from services.alerts.http.dlq import DlqRoutes
from services.alerts.http.heartbeats import HeartbeatRoutes
from services.alerts.http.intake import IntakeRoutes
from services.alerts.http.on_call import OnCallRoutes
from services.alerts.http.operations import OperationsRoutes
from services.alerts.http.replay import ReplayRoutes
from services.alerts.http.silences import SilenceRoutes
from services.alerts.http.slack import SlackRoutes
from services.alerts.intake import PREFETCH, Intake
from services.alerts.messages import HEARTBEAT_MISSED
from services.alerts.rules.case import Links
from services.alerts.rules.subjects import Subjects
from services.alerts.settings import AlertsSettings
from services.alerts.store.incidents import Pace
from services.alerts.store.schema import MIGRATIONS, Schema
from services.alerts.targets.breaker import Breaker
from services.alerts.targets.status import TargetStatus, release_backlog
from services.alerts.targets.throttle import Throttle
from services.alerts.upkeep import retention
from services.alerts.upkeep.digests import Digests
from services.alerts.upkeep.ledger_check import LedgerCheck
from services.alerts.upkeep.privacy import Privacy
from services.alerts.upkeep.reconcile import Reconciler

log = logs.get_logger(__name__)

RETENTION_SECONDS = 3600.0
MONITOR_SECONDS = 60.0
# The ledger counts attempts: a work message in `.dead` would leave its row without a message.
MAX_FAILURES = 100_000
SHOWN = {
    *("channel", "timeout", "retry_delays", "concurrency"),
    *("rate_per_minute", "fallback", "max_age", "breaker"),
}
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
        *topology.target_queues(configured),
    )
    service.spawn("outbox relay", outbox.Relay(engine, broker, database_url).run())

    lag = LoopLag()
    service.spawn("loop lag", lag.watch())
    permits = Permits(await service.enter(Requester(broker, service.name)), lag)

    log.info("networks.configured", private=list(map(str, settings.alerts_private_networks)))
    schedules = _schedules(service, engine, Rotas(configured, settings.alerts_config.parent))
    rules = configured.rules(schedules.person, _links(settings), schedules.people)
    breakers: dict[str, Breaker] = {}
    throttles: dict[str, Throttle] = {}
    for name, target in configured.targets.items():
        channel = await service.enter(
            channels.opened(name, target, templates, settings.alerts_private_networks)
        )
        breaker = breakers[name] = Breaker(
            name,
            fail_max=target.breaker.fail_max,
            reset_timeout=target.breaker.reset_timeout,
            shared=True,
        )
        throttle = throttles[name] = Throttle(
            breaker,
            per_minute=target.rate_per_minute,
            concurrency=target.concurrency,
            shared=True,
        )
        make: Callable[..., Worker] = (
            partial(AtMostOnceWorker, permits=permits) if target.once else Worker
        )
        worker = make(name, target, channel, breaker, throttle, engine, broker, rules=rules)
        subscription = await service.enter(
            consumer.consume(
                broker,
                topology.work_name(name),
                worker.handle,
                prefetch=target.prefetch,
                max_retries=MAX_FAILURES,
            )
        )
        service.spawn(f"throttle {name}", throttle.run(subscription))
        service.spawn(
            f"backlog {name}",
            release_backlog(engine, name, throttle, settings.alerts_backlog_per_second),
        )
        log.info("target.configured", target=name, **target.model_dump(include=SHOWN))

    target_status = TargetStatus(engine, breakers, throttles, configured.settings)
    await service.enter(target_status.membership())
    service.spawn("target status", target_status.run())

    subjects = Subjects(settings.alerts_subject_keys.get_secret_value())
    intake = Intake(configured, engine, broker, subjects, rules)
    await service.enter(
        consumer.consume(broker, topology.INTAKE_QUEUE, intake.handle, prefetch=PREFETCH)
    )

    heartbeats = Heartbeats(engine, rules, intake, broker.depths)
    names = frozenset(configured.targets)
    # Also without a policy: cases may be open that an earlier configuration opened.
    for job, run in (
        ("case timer", Timer(engine, rules, names).run),
        ("case updates", Updates(engine, names).run),
        ("heartbeats", heartbeats.run),
    ):
        poll = periodic.every(engine, job, timer.POLL_SECONDS, run, on_each=True)
        service.spawn(job, poll)

    payloads_kept = settings.alerts_payload_kept_days * 86400.0
    privacy = Privacy(engine, broker, subjects, kept=payloads_kept)
    for queue, handler, prefetch in (
        (topology.PINGS_QUEUE, heartbeats.handle, PINGS_PREFETCH),
        (topology.ERASURES_QUEUE, privacy.erasures, 1),
        (topology.REQUESTS_QUEUE, privacy.requests, 1),
    ):
        await service.enter(consumer.consume(broker, queue, handler, prefetch=prefetch))

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
    digests = _digests(engine, intake, reconciler, schedules.rotas.faults, settings)
    _spawn_periodic(
        service,
        engine,
        ("alerts reconcile", settings.alerts_reconcile_seconds, reconciler.run),
        ("alerts fallback", settings.alerts_reconcile_seconds / 6, reconciler.fall_back),
        ("alerts digests", settings.alerts_escalation_seconds, digests.run),
        (
            "alerts monitor",
            min(MONITOR_SECONDS, 2 * settings.alerts_reconcile_seconds),
            partial(ledger_check.tell, settings.heartbeat_url),
        ),
        ("alerts refusals", settings.alerts_reconcile_seconds / 6, digests.run_at_once),
        (
            "alerts retention",
            RETENTION_SECONDS,
            partial(
                retention.run,
                engine,
                delivered=settings.alerts_delivered_kept_hours * 3600.0,
                payloads=payloads_kept,
            ),
        ),
        ("alerts subjects", RETENTION_SECONDS, privacy.upkeep),
    )

    app = application.create_app(
        internal_key=settings.internal_api_key.get_secret_value(), max_body=MAX_INTERNAL_BODY
    )
    app.middlewares.append(application.unavailable_when(postgres.is_transient))
    service.spawn("ledger check", ledger_check.watch(settings.alerts_reconcile_seconds / 2))
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
        DlqRoutes(engine, intake, throttles),
        ReplayRoutes(engine, configured),
        OnCallRoutes(engine, schedules, rules.people),
        operations,
        HealthRoute(
            operations.health, service.name, settings, broker, MIGRATIONS, (operations.findings,)
        ),
        CaseRoutes(Answers(engine, rules), ledger_check),
        SilenceRoutes(engine, configured),
        HeartbeatRoutes(
            heartbeats,
            Tokens(keys) if (keys := settings.ping_keys.get_secret_value()) else None,
            settings.public_base_url.rstrip("/"),
            routed=bool(configured.route(HEARTBEAT_MISSED, None)),
        ),
        CasePages(Answers(engine, rules), company.style_of(settings.company_config)),
        SlackRoutes(
            Answers(engine, rules), _apps(configured), templates, settings.alerts_private_networks
        ),
    ):
        routes.add_to(app)
    service.spawn("certificates", certificate_ends.watch(settings.tls_dir, settings.servers))
    await server.serve_metrics(service, settings.http_host, settings.metrics_port)
    await server.serve(
        service, app, settings.http_host, settings.http_port, tls_dir=settings.tls_dir
    )


def _apps(configured: Config) -> dict[str, SlackTarget]:
    return {
        name: each
        for name, each in configured.targets.items()
        if isinstance(each, SlackTarget) and each.team
    }


def _links(settings: AlertsSettings) -> Links:
    keys = parse_keys(settings.alerts_subject_keys.get_secret_value())
    return Links(next(iter(keys.values())), settings.public_base_url.rstrip("/"))


def _schedules(service: Service, engine: AsyncEngine, rotas: Rotas) -> Schedules:
    rotas.refresh(datetime.now(UTC))  # before the first case asks
    schedules = Schedules(engine, rotas)
    job = periodic.every(engine, "schedules", POLL_SECONDS, schedules.refresh, on_each=True)
    service.spawn("schedules", job)
    return schedules


def _spawn_periodic(
    service: Service, engine: AsyncEngine, *jobs: tuple[str, float, Callable[[], Awaitable[object]]]
) -> None:
    for name, seconds, job in jobs:
        service.spawn(name, periodic.every(engine, name, seconds, job))
        log.info("periodic.configured", job=name, seconds=seconds)


def _digests(
    engine: AsyncEngine,
    intake: Intake,
    reconciler: Reconciler,
    rota_faults: Callable[[], Mapping[str, str]],
    settings: AlertsSettings,
) -> Digests:
    if unknown := [name for name in settings.escalate_by if name not in reconciler.config.targets]:
        raise SystemExit(f"ESCALATE_BY: no target is named {', '.join(unknown)}")
    log.info(
        "incidents.configured",
        fallback_seconds=settings.alerts_fallback_seconds,
        notify_after_seconds=settings.alerts_incident_seconds,
        repeat_seconds=settings.alerts_incident_repeat_seconds,
        pending=settings.alerts_incident_pending,
    )
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
