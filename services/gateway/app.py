"""The wiring of the gateway: read down for the order of start, up for the order of stop."""

from pydantic import SecretStr

from libs.common import serving, web
from libs.common.broker import Broker
from libs.common.cache import Cache
from libs.common.service import Service
from libs.common.tokens import Tokens
from services.gateway import docs, scrape
from services.gateway.bodies import Bodies
from services.gateway.browsers import Browsers
from services.gateway.clients import Addresses, Keys, parse_networks
from services.gateway.door import Door
from services.gateway.health import Health
from services.gateway.http import Api
from services.gateway.idempotency import Idempotency
from services.gateway.intake import Intake
from services.gateway.limits import COUNT, Limiter
from services.gateway.overrides import SCRIPTS, Overrides
from services.gateway.redis_pipe import RedisPipe
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets
from services.gateway.upstream import Upstream
from services.gateway.workers import Line

ANSWER_SECONDS = {"followups": 30.0, "consent": 40.0, "alerts": 20.0}
"""A withdrawal at consent may wait 25 s for permits (protocols.md)."""


async def start(
    service: Service, settings: GatewaySettings, targets: Targets, line: Line | None = None
) -> None:
    """:param line: to the supervisor, in one of several workers"""
    shadow = settings.rate_limit_mode == "shadow"
    redis_url = settings.redis_url.get_secret_value()

    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), "gateway"))
    cache = await service.enter(Cache.open(redis_url, prefix="ostoja:gateway:"))
    service.spawn("cache.purge", cache.purge_forever())

    pipe = RedisPipe(redis_url, (COUNT, *SCRIPTS))
    limiter = Limiter(pipe)
    overrides = Overrides(pipe, limiter, settings.rules(), settings.rate_limit_state_file)
    service.spawn("redis_pipe", pipe.run())
    service.spawn("limits.poll", overrides.poll_forever())

    internal_key = settings.internal_api_key.get_secret_value()
    urls = {
        "followups": settings.followups_url,
        "consent": settings.consent_url,
        "alerts": settings.alerts_url,
    }
    upstreams = {
        name: await service.enter(
            Upstream.open(name, url, internal_key, answer_seconds=ANSWER_SECONDS[name])
        )
        for name, url in urls.items()
    }

    door = Door(
        keys=Keys(_secret(settings.service_api_key), _secret(settings.admin_api_key)),
        addresses=Addresses(parse_networks(settings.trusted_proxies)),
        tokens=Tokens(keys) if (keys := _secret(settings.token_keys)) else None,
        limiter=limiter,
        overrides=overrides,
        shadow=shadow,
    )

    async def purge_here() -> int:
        return cache.purge()

    api = Api(
        bodies=Bodies(),
        upstreams=upstreams,
        intake=Intake(broker, upstreams["alerts"]),
        targets=targets,
        idempotency=Idempotency(cache),
        overrides=overrides,
        shadow=shadow,
        health=Health(upstreams, pipe, broker),
        purge=line.purge_all if line is not None else purge_here,
    )
    browsers = Browsers(
        settings.cors_origins, https=settings.public_base_url.startswith("https://")
    )
    app = web.create_app(internal_key=None)
    app.middlewares.extend([browsers.preflight, door.middleware])
    app.on_response_prepare.append(browsers.finish)
    api.add_routes(app, door)
    docs.add_routes(app)

    if line is None:
        await scrape.serve(service, settings)
    await serving.serve(
        service, app, settings.http_host, settings.http_port, shared=line is not None
    )
    if line is not None:
        service.spawn("supervisor", line.hold(cache.purge))


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None
