"""The wiring: read down for the order of starting, up for the order of stopping."""

import os

from libs.common import consume, db, logs, outbox, periodic, serving, web
from libs.common.broker import Broker
from libs.common.requests import Requester
from libs.common.service import Service
from services.alerts import channels, config, topology
from services.alerts.balance import Balance
from services.alerts.board import Board
from services.alerts.breaker import Breaker
from services.alerts.consumers import IN_HAND, Intake, Persons
from services.alerts.delivery import Worker
from services.alerts.digests import Digests
from services.alerts.drain import drain
from services.alerts.http import Api
from services.alerts.permits import LoopLag, Permits
from services.alerts.retention import Retention
from services.alerts.schema import Schema
from services.alerts.settings import AlertsSettings
from services.alerts.store.troubles import Pace
from services.alerts.sweep import Sweep
from services.alerts.valve import Valve

log = logs.get_logger(__name__)

RETENTION_SECONDS = 3600.0
# To be rejected is a work message's ordinary life (each retry, each wait for a permit), so the
# count says nothing of a fault; the ledger counts attempts.
MAX_REJECTIONS = 100_000
MAX_INTERNAL_BODY = 1024 * 1024  # the gateway's largest batch, with the fields that it adds


async def start(service: Service, settings: AlertsSettings) -> None:
    configured, templates = config.load(settings.alerts_config, os.environ)
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(
        db.connect(database_url, application_name=service.name, pool_size=20)
    )
    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(
        *topology.EXCHANGES,
        *topology.intake_queues(),
        *topology.person_queues(),
        *topology.target_queues(configured),
    )
    relay = outbox.Relay(engine, broker, database_url)
    service.spawn("outbox relay", relay.run())

    lag = LoopLag()
    service.spawn("loop lag", lag.watch())
    permits = Permits(await service.enter(Requester(broker, service.name)), lag)

    private = settings.alerts_private_networks
    log.info("networks.in_force", private=[str(network) for network in private])
    breakers: dict[str, Breaker] = {}
    valves: dict[str, Valve] = {}
    for name, target in configured.targets.items():
        channel = await service.enter(channels.opened(name, target, templates, private))
        breaker = breakers[name] = Breaker(
            name,
            fail_max=target.breaker.fail_max,
            reset_timeout=target.breaker.reset_timeout,
        )
        valve = valves[name] = Valve(breaker, per_minute=target.rate_per_minute)
        worker = Worker(
            name, target, channel, breaker, valve, engine=engine, broker=broker, permits=permits
        )
        consumer = await service.enter(
            consume.consume(
                broker,
                topology.work_name(name),
                worker.handle,
                prefetch=target.in_hand,
                max_retries=MAX_REJECTIONS,
            )
        )
        service.spawn(f"valve {name}", valve.run(consumer))
        service.spawn(
            f"drain {name}",
            drain(engine, name, valve, per_second=settings.alerts_drain_per_second),
        )
        log.info(
            "target.in_force",
            target=name,
            channel=target.channel,
            timeout=target.timeout,
            retry_delays=target.retry_delays,
            concurrency=target.concurrency,
            rate_per_minute=target.rate_per_minute,
            fallback=target.fallback,
            max_age=target.max_age,
            fail_max=target.breaker.fail_max,
            reset_timeout=target.breaker.reset_timeout,
        )

    board = Board(engine, breakers, valves)
    await service.enter(board.kept())
    service.spawn("board", board.run())

    intake = Intake(configured, engine, broker)
    await service.enter(
        consume.consume(broker, topology.INTAKE_QUEUE, intake.handle, prefetch=IN_HAND)
    )

    people = Persons(engine, broker)
    for queue, handler in (
        (topology.ERASURES_QUEUE, people.erasures),
        (topology.REQUESTS_QUEUE, people.requests),
    ):
        await service.enter(consume.consume(broker, queue, handler, prefetch=1))

    sweep = Sweep(
        configured,
        engine,
        broker,
        overdue=settings.alerts_overdue_seconds,
        fallback_after=settings.alerts_fallback_seconds,
    )
    digests = Digests(
        engine,
        intake,
        sweep,
        to=settings.escalation_email,
        base_url=settings.public_base_url,
        pending=settings.alerts_trouble_pending,
        pace=Pace(
            after=settings.alerts_trouble_seconds,
            again=settings.alerts_trouble_again_seconds,
            pause=settings.alerts_escalation_seconds,
        ),
    )
    log.info(
        "trouble.in_force",
        fallback_seconds=settings.alerts_fallback_seconds,
        told_after_seconds=settings.alerts_trouble_seconds,
        told_again_seconds=settings.alerts_trouble_again_seconds,
        pending=settings.alerts_trouble_pending,
    )
    retention = Retention(
        engine,
        delivered=settings.alerts_delivered_kept_hours * 3600.0,
        payloads=settings.alerts_payload_kept_days * 86400.0,
    )
    for name, seconds, job in (
        ("alerts sweep", settings.alerts_sweep_seconds, sweep.run),
        ("alerts digests", settings.alerts_escalation_seconds, digests.run),
        ("alerts retention", RETENTION_SECONDS, retention.run),
        ("alerts count", settings.alerts_sweep_seconds, retention.count),
    ):
        service.spawn(name, periodic.every(engine, name, seconds, job))
        log.info("periodic.in_force", job=name, seconds=seconds)

    app = web.create_app(
        internal_key=settings.internal_api_key.get_secret_value(), max_body=MAX_INTERNAL_BODY
    )
    app.middlewares.append(web.unavailable_when(db.may_pass))
    owner_url = settings.owner_database_url
    schema = Schema(engine, database_url, owner_url.get_secret_value() if owner_url else None)
    balance = Balance(engine, sweep, valves, overdue=settings.alerts_overdue_seconds)
    service.spawn("balance", balance.watch(settings.alerts_sweep_seconds / 2))
    api = Api(engine, intake, sweep, board, valves, schema, balance)
    app.router.add_routes(api.routes())
    await serving.serve(service, app, settings.http_host, settings.http_port)
    await serving.serve_metrics(service, settings.http_host, settings.metrics_port)
