"""The wiring: read down for the start order, up for the stop order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import health
from libs.common.database import periodic, postgres, schema_version
from libs.common.health import HealthRoute
from libs.common.http import application, server
from libs.common.messaging import consumer, inbox, outbox
from libs.common.messaging.broker import Broker
from libs.common.messaging.rpc import Requester
from libs.common.process.service import Service
from libs.domain.signed_links import Tokens
from services.consent import erasure_orders, topology
from services.consent.consumers import Consumers
from services.consent.dead_letters import SubjectDeadLetters
from services.consent.http.admin import AdminRoutes
from services.consent.http.pages.routes import PageRoutes
from services.consent.http.public import PublicRoutes
from services.consent.mails import LinkMails
from services.consent.optin import OptIns
from services.consent.recovery import journal, verifications
from services.consent.recovery.journal import Journal
from services.consent.recovery.withdrawals import Withdrawals
from services.consent.settings import ConsentSettings
from services.consent.store import hash_keys, upkeep
from services.consent.store.vault import Vault
from services.consent.trail import chain, checkpoints

MIGRATIONS = Path(__file__).parent / "migrations"
PREFETCH = 50
PURGE_SECONDS = 3600
TRIM_SECONDS = 24 * 3600
FOLLOW_UP_SECONDS = 60


async def _check_hash_keys(engine: AsyncEngine, vault: Vault) -> None:
    """Wait for the database, and stop if other keys made its hashes.

    :raises SystemExit: says what to do
    """
    while True:
        with postgres.through_outages("consent.database_unavailable"):
            async with engine.begin() as tx:
                made_by = await hash_keys.applied(tx, vault.hash_keys)
            break
        await asyncio.sleep(1)
    if made_by != vault.hash_keys:
        raise SystemExit("CONSENT_HASH_KEY has changed: run `consent rehash`, or restore the key")


async def start(service: Service, settings: ConsentSettings) -> None:
    vault = settings.vault()
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(postgres.connect(database_url, application_name=service.name))
    await schema_version.require(service, engine, MIGRATIONS)
    await _check_hash_keys(engine, vault)
    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(*topology.EXCHANGES, *topology.QUEUES)

    relay = outbox.Relay(engine, broker, database_url)
    service.spawn("outbox relay", relay.run())
    followed = Journal(engine, vault, settings)
    sign = partial(checkpoints.keep, engine, settings.checkpoint_file, settings.signer())
    for name, seconds, job in (
        ("consent checkpoints", checkpoints.LOOK_SECONDS, sign),
        ("consent withdrawals", journal.LOOK_SECONDS, followed.update),
        ("consent withdrawals trim", TRIM_SECONDS, followed.trim),
        ("consent backups", verifications.LOOK_SECONDS, partial(verifications.show, settings)),
    ):
        service.spawn(name, periodic.every(engine, name, seconds, job, on_each=True))
    resend = settings.erasure_resend_seconds
    dead_letters = SubjectDeadLetters(engine, broker, vault)
    follow_up = partial(erasure_orders.follow_up, engine, vault, resend)
    jobs: tuple[tuple[str, float, Callable[[], Awaitable[object]]], ...] = (
        ("consent erasures", min(resend, FOLLOW_UP_SECONDS), follow_up),
        ("consent dead letters", PURGE_SECONDS, dead_letters.upkeep),
        ("consent inbox purge", PURGE_SECONDS, partial(inbox.purge, engine)),
        ("consent permit purge", PURGE_SECONDS, partial(_purge, engine, settings.retention)),
    )
    for name, every, run in jobs:
        service.spawn(name, periodic.every(engine, name, every, run))
    tokens = Tokens(settings.token_keys.get_secret_value())
    link_mails = LinkMails(tokens, settings)
    opt_ins = OptIns(vault, link_mails, settings)
    consumers = Consumers(
        engine, broker, vault, link_mails, settings, opt_ins, followed, dead_letters
    )
    for queue, handler in (
        (topology.REQUESTS_QUEUE, consumers.permits),
        (topology.PERMITS_QUEUE, consumers.permits),
        (topology.COMMANDS_QUEUE, consumers.commands),
    ):
        await service.enter(consumer.Consumer(broker, queue, handler, prefetch=PREFETCH))

    requester = await service.enter(Requester(broker, service.name))
    app = application.create_app(internal_key=settings.internal_api_key.get_secret_value())
    app.middlewares.append(application.unavailable_when(postgres.is_transient))
    withdrawals = Withdrawals(engine, vault, settings, service.stopping, followed)
    PublicRoutes(engine, vault, tokens, link_mails, withdrawals, opt_ins).add_to(app)
    PageRoutes(engine, vault, tokens, settings, withdrawals, opt_ins).add_to(app)
    AdminRoutes(engine, requester, vault, settings, withdrawals, dead_letters).add_to(app)
    look = partial(health.with_outbox, engine, broker)
    checks = (partial(chain.findings, engine),)
    HealthRoute(look, service.name, settings, broker, MIGRATIONS, checks).add_to(app)
    await server.serve_all(service, app, settings)


async def _purge(engine: AsyncEngine, retention: Mapping[str, int]) -> None:
    while True:
        async with engine.begin() as tx:
            if not await upkeep.purge(tx, retention):
                return
