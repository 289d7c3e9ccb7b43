"""The wiring: read down for the order of starting, up for the order of stopping."""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import consume, db, inbox, logs, outbox, periodic, serving, web
from libs.common.broker import Broker
from libs.common.requests import Requester
from libs.common.service import Service
from libs.common.tokens import Tokens
from services.consent import checkpoints, erasures, topology
from services.consent.admin import AdminRoutes
from services.consent.checkpoints import Signer
from services.consent.consumers import Consumers
from services.consent.http import Routes
from services.consent.optin import OptIns
from services.consent.pages.routes import PageRoutes
from services.consent.records import Records
from services.consent.settings import ConsentSettings
from services.consent.store import upkeep
from services.consent.vault import Vault
from services.consent.withdrawals import Withdrawals

PREFETCH = 50
PURGE_SECONDS = 3600
CHASE_SECONDS = 60


log = logs.get_logger(__name__)


async def start(service: Service, settings: ConsentSettings) -> None:
    vault = Vault(
        settings.consent_master_keys.get_secret_value(),
        settings.consent_hash_key.get_secret_value(),
    )
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(db.connect(database_url, application_name=service.name))
    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(*topology.EXCHANGES, *topology.QUEUES)

    relay = outbox.Relay(engine, broker, database_url)
    service.spawn("outbox relay", relay.run())
    signer = Signer(settings.consent_checkpoint_keys.get_secret_value())
    written = Records(settings.consent_records_dir / checkpoints.FILE)
    keep = partial(checkpoints.keep, engine, written, signer)
    signing = periodic.every(engine, "consent checkpoints", checkpoints.LOOK_SECONDS, keep)
    service.spawn("checkpoints", signing)
    resend = settings.erasure_resend_seconds
    follow_up = partial(erasures.follow_up, engine, vault, resend)
    chasing = periodic.every(engine, "consent erasures", min(resend, CHASE_SECONDS), follow_up)
    service.spawn("erasures", chasing)
    for name, job in (
        ("consent inbox purge", partial(inbox.purge, engine)),
        ("consent permit purge", partial(_purge, engine, settings.suppression_retention_days)),
    ):
        service.spawn(name, periodic.every(engine, name, PURGE_SECONDS, job))
    tokens = Tokens(settings.token_keys.get_secret_value())
    opt_ins = OptIns(vault, tokens, settings)
    consumers = Consumers(engine, broker, vault, settings, opt_ins)
    for queue, handler in (
        (topology.REQUESTS_QUEUE, consumers.permits),
        (topology.PERMITS_QUEUE, consumers.permits),
        (topology.COMMANDS_QUEUE, consumers.commands),
    ):
        await service.enter(consume.consume(broker, queue, handler, prefetch=PREFETCH))

    requester = await service.enter(Requester(broker, service.name))
    app = web.create_app(internal_key=settings.internal_api_key.get_secret_value())
    app.middlewares.append(web.unavailable_when(db.may_pass))
    withdrawals = Withdrawals(engine, vault, settings, service.stopping)
    Routes(engine, broker, vault, tokens, settings, withdrawals, opt_ins).add_to(app)
    PageRoutes(engine, vault, tokens, settings, withdrawals, opt_ins).add_to(app)
    AdminRoutes(engine, requester, vault, settings, withdrawals, signer).add_to(app)
    await serving.serve(service, app, settings.http_host, settings.http_port)
    await serving.serve_metrics(service, settings.http_host, settings.metrics_port)
    log.info(
        "consent.in_force",
        permit_seconds=settings.permit_seconds,
        withdrawal_wait_seconds=settings.withdrawal_wait_seconds,
        permit_quarantine_seconds=settings.permit_quarantine_seconds,
        erasure_link_hours=settings.erasure_link_hours,
        double_opt_in=settings.double_opt_in,
        opt_in_link_days=settings.opt_in_link_days,
        suppression_retention_days=settings.suppression_retention_days,
        erasure_resend_seconds=resend,
        purge_seconds=PURGE_SECONDS,
    )


async def _purge(engine: AsyncEngine, erasures_kept_days: int) -> None:
    while True:
        async with engine.begin() as tx:
            if not await upkeep.purge(tx, erasures_kept_days):
                return
