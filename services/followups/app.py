"""The wiring: read down for the order of starting, up for the order of stopping."""

from functools import partial

from libs.common import consume, db, inbox, outbox, periodic, serving, web
from libs.common.broker import Broker
from libs.common.service import Service
from libs.common.tokens import Tokens
from services.followups import config, retention, topology
from services.followups.consumers import Consumers
from services.followups.http import Routes
from services.followups.mail import Mails
from services.followups.model import ChatModel
from services.followups.scheduler import Scheduler
from services.followups.settings import FollowupsSettings

PREFETCH = 20
PURGE_SECONDS = 3600


async def start(service: Service, settings: FollowupsSettings) -> None:
    configured = config.load(settings.followups_config, quiet_hours=settings.followup_quiet_hours)
    mails = Mails(
        configured, Tokens(settings.token_keys.get_secret_value()), settings.public_base_url
    )
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(db.connect(database_url, application_name=service.name))
    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(*topology.EXCHANGES, *topology.QUEUES)

    relay = outbox.Relay(engine, broker, database_url)
    service.spawn("outbox relay", relay.run())
    purge = periodic.every(
        engine, "followups inbox purge", PURGE_SECONDS, partial(inbox.purge, engine)
    )
    service.spawn("inbox purge", purge)
    days = settings.conversation_retention_days
    forget = periodic.every(
        engine, "followups retention", PURGE_SECONDS, partial(retention.forget, engine, days)
    )
    service.spawn("retention", forget)
    consumers = Consumers(engine, broker)
    for queue, handler in (
        (topology.REQUESTS_QUEUE, consumers.requests),
        (topology.CONSENT_QUEUE, consumers.consent_events),
        (topology.OUTCOMES_QUEUE, consumers.outcomes),
    ):
        await service.enter(consume.consume(broker, queue, handler, prefetch=PREFETCH))
    scheduler = Scheduler(engine, configured, mails, settings.followup_max_per_day)
    service.spawn("scheduler", scheduler.run())

    app = web.create_app(internal_key=settings.internal_api_key.get_secret_value())
    model = None
    if settings.chat_model_url:
        key = settings.chat_model_key
        model = await service.enter(
            ChatModel.open(
                settings.chat_model_url,
                key.get_secret_value() if key else "",
                settings.chat_model_name,
                configured.instructions,
                seconds=settings.chat_model_seconds,
            )
        )
    Routes(engine, broker, configured, model).add_to(app)
    await serving.serve(service, app, settings.http_host, settings.http_port)
    await serving.serve_metrics(service, settings.http_host, settings.metrics_port)
