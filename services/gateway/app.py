"""The wiring: read down for the start order, up for the stop order."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from libs.common import surroundings
from libs.common.cache import Cache
from libs.common.database import redis_server
from libs.common.database.redis_pipeline import RedisPipeline
from libs.common.http import application, server
from libs.common.messaging.broker import Broker
from libs.common.process import certificate_ends
from libs.common.process.service import Service
from libs.domain.forms import Forms
from libs.domain.signed_links import Tokens
from services.gateway import door, workers
from services.gateway.door.access import Access
from services.gateway.door.body_budget import BodyBudget
from services.gateway.door.budgets import Budgets
from services.gateway.door.clients import Keys, TrustedProxies, parse_networks
from services.gateway.door.cors import Cors
from services.gateway.door.key_store import KEYS_IN_REDIS, KeyFile, KeysInRedis, KeyStore
from services.gateway.door.keys import ApiKeys, parse_ids
from services.gateway.door.limits import Limiter, Waits
from services.gateway.door.overrides import Overrides
from services.gateway.health import Health
from services.gateway.http import Api
from services.gateway.intake.action_record import ActionRecord
from services.gateway.intake.alerts import Intake
from services.gateway.intake.forms.robots import Robots
from services.gateway.intake.forms.routes import FormRoutes, origins_of
from services.gateway.intake.idempotency import Idempotency
from services.gateway.intake.pings import PingRoutes
from services.gateway.intake.relayed import Relayed
from services.gateway.pages import console as console_pages
from services.gateway.pages import docs, widget
from services.gateway.pages import files as pages
from services.gateway.proxy.key_sync import KeySync, process_name
from services.gateway.proxy.upstream import Upstream
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets

ANSWER_SECONDS = {"followups": 30.0, "consent": 40.0, "alerts": 20.0, "console": 30.0}
"""A withdrawal at consent may wait 25 s for permits (protocols.md)."""


async def start(
    service: Service,
    settings: GatewaySettings,
    targets: Targets,
    forms: Forms,
    link: int | None = None,
) -> None:
    """:param link: see `workers.hold`; None without a supervisor"""
    shadow = settings.rate_limit_mode == "shadow"
    redis_url = settings.redis_url.get_secret_value()

    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), "gateway"))
    redis = RedisPipeline(redis_url, Path(door.__file__).parent.glob("*.lua"))
    limiter = Limiter(redis)
    waits = Waits(limiter, settings.service_wait_seconds, settings.service_wait_most)
    overrides = Overrides(redis, limiter, settings.rules(), settings.rate_limit_state_file)
    service.spawn("redis_pipeline", redis.run())
    cache = Cache(redis, "ostoja:gateway:")
    service.spawn("cache.purge", cache.purge_forever())
    service.spawn("limits.poll", overrides.poll_forever())

    configured = {
        "followups": (settings.followups_url, settings.followups_internal_key),
        "consent": (settings.consent_url, settings.consent_internal_key),
        "alerts": (settings.alerts_url, settings.alerts_internal_key),
    }
    if settings.console_url is not None and settings.console_internal_key is not None:
        configured["console"] = (settings.console_url, settings.console_internal_key)

    async def upstream(name: str, connections: int | None = None) -> Upstream:
        url, key = configured[name]
        opened = Upstream(
            name,
            url,
            key.get_secret_value(),
            answer_seconds=ANSWER_SECONDS[name],
            tls_dir=settings.tls_dir,
            connections=connections,
        )
        return await service.enter(opened)

    upstreams = {name: await upstream(name) for name in configured}

    api_keys = ApiKeys(parse_ids(settings.keys_denied))
    key_sync = None
    if (console := upstreams.get("console")) is not None:
        name = process_name(settings.http_port)
        key_sync = await service.enter(
            KeySync(console, api_keys, _key_store(settings, redis), name)
        )
        service.spawn("keys.sync", key_sync.run())

    body_budget, budgets = BodyBudget(), Budgets(limiter, shadow=shadow)
    proxies = TrustedProxies(parse_networks(settings.trusted_proxies))
    access = Access(
        keys=Keys(
            _set(settings.service_api_key, settings.service_api_key_previous),
            _set(settings.admin_api_key, settings.admin_api_key_previous),
        )
        if settings.env_keys
        else Keys((), ()),
        api_keys=api_keys,
        proxies=proxies,
        tokens=Tokens(keys[0]) if (keys := _set(settings.token_keys)) else None,
        pings=Tokens(keys[0]) if (keys := _set(settings.ping_keys)) else None,
        operators=Tokens(keys[0]) if (keys := _set(settings.operator_keys)) else None,
        limiter=limiter,
        budgets=budgets,
        waits=waits,
        overrides=overrides,
        shadow=shadow,
    )

    idempotency = Idempotency(cache)
    form_routes = FormRoutes(
        forms=forms,
        public_base_url=settings.public_base_url,
        body_budget=body_budget,
        relayed=Relayed(
            broker,
            upstreams["followups"],
            exchange="followups.commands",
            routing_key="lead.submit",
            path="/internal/leads",
        ),
        idempotency=idempotency,
        limiter=limiter,
        budgets=budgets,
        robots=Robots(keys[0] if (keys := _set(settings.form_keys)) else None, cache),
        grace=timedelta(days=settings.wording_grace_days),
        shadow=shadow,
    )
    links = {name: SecretStr(url) for name, (url, _) in configured.items()}
    around = partial(
        surroundings.findings,
        "gateway",
        settings,
        broker,
        links,
        partial(surroundings.in_thread, redis_server.findings, redis_url),
    )
    api = Api(
        body_budget=body_budget,
        budgets=budgets,
        upstreams=upstreams,
        intake=Intake(broker, upstreams["alerts"]),
        targets=targets,
        idempotency=idempotency,
        overrides=overrides,
        waits=waits,
        shadow=shadow,
        slack_secret=slack.get_secret_value() if (slack := settings.slack_signing_secret) else None,
        forms=form_routes,
        pings=PingRoutes(
            body_budget,
            Relayed(
                broker,
                upstreams["alerts"],
                exchange="alerts",
                routing_key="alerts.pings",
                path="/internal/pings",
            ),
            access.pings,
        ),
        actions=ActionRecord(broker, console),
        health=Health(upstreams, redis, broker, key_sync, around),
        leaving=lambda: service.leaving,
        purge=cache.purge,
    )
    cors = Cors(
        settings.cors_origins,
        origins_of(forms),
        https=settings.public_base_url.startswith("https://"),
    )
    app = application.create_app(internal_key=None)
    app.middlewares.insert(
        1, pages.errors_as_pages
    )  # behind the access log, before all that rejects
    app.middlewares.extend([cors.preflight, access.middleware])
    app.on_response_prepare.append(cors.finish)
    api.add_routes(app, access)
    if console is not None:
        streams = await upstream("console", console_pages.STREAMS)
        console_pages.add_routes(app, access, console, streams, body_budget)
    docs.add_routes(app)
    widget.add_routes(app, access, settings.public_base_url.rstrip("/"))

    service.spawn(
        "certificates", certificate_ends.watch(settings.tls_dir, settings.servers | links)
    )
    if link is None:
        await server.serve_metrics(service, settings.http_host, settings.metrics_port)
    await server.serve(
        service,
        app,
        settings.http_host,
        settings.http_port,
        shared=link is not None,
        bounds=server.Bounds(
            settings.max_connections, settings.connections_per_client, proxies.connection_bucket
        ),
        tls_dir=settings.tls_dir if settings.https_port is not None else None,
        https_port=settings.https_port,
    )
    if link is not None:
        service.spawn("supervisor", workers.hold(link))


def _key_store(settings: GatewaySettings, redis: RedisPipeline) -> KeyStore:
    if settings.keys_state_file != KEYS_IN_REDIS:
        return KeyFile(settings.keys_state_file)
    assert settings.console_internal_key is not None  # noqa: S101 - there is a console
    return KeysInRedis(redis, settings.console_internal_key.get_secret_value())


def _set(*keys: SecretStr | None) -> list[str]:
    """Return the keys that are set."""
    return [key.get_secret_value() for key in keys if key is not None]
