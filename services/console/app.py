"""The wiring: read down for the start order, up for the stop order."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.common import health
from libs.common.database import periodic, postgres, schema_version
from libs.common.health import HealthRoute
from libs.common.http import application, server
from libs.common.messaging import consumer, outbox
from libs.common.messaging.broker import Broker
from libs.common.process.service import Service
from libs.domain.company import style
from libs.domain.signed_links import Tokens
from services.console import samples, topology
from services.console.api import ApiRoutes
from services.console.bulk import IDLE_SECONDS, Bulk
from services.console.gateway import Gateway
from services.console.keys.keys import Keys
from services.console.keys.sync import Sync
from services.console.pages import page, routes
from services.console.pages.base import Site
from services.console.pages.door import Door, errors_as_pages
from services.console.pages.live import Live, LiveRoutes
from services.console.pages.oidc import CALLBACK, OidcRoutes
from services.console.people.logins import Logins
from services.console.people.notices import Notices
from services.console.people.oidc import Provider
from services.console.people.passwords import Passwords
from services.console.people.people import People, erase_disabled
from services.console.record import Acts, Looks
from services.console.settings import ConsoleSettings
from services.console.store import versions
from services.console.store.sql import run

MIGRATIONS = Path(__file__).parent / "migrations"
PURGE_SECONDS = 3600
POOL = 5
PREFETCH = 20
SESSION_DAYS = 30


async def start(service: Service, settings: ConsoleSettings) -> None:
    database_url = settings.database_url.get_secret_value()
    engine = await service.enter(
        postgres.connect(database_url, application_name=service.name, pool_size=POOL)
    )
    await schema_version.require(service, engine, MIGRATIONS)

    broker = await service.enter(Broker.connect(settings.amqp_url.get_secret_value(), service.name))
    await broker.declare(*topology.EXCHANGES, *topology.QUEUES)
    acts = Acts(engine)
    await service.enter(
        consumer.Consumer(broker, topology.ACTIONS_QUEUE, acts.consume, prefetch=PREFETCH)
    )

    relay = outbox.Relay(engine, broker, database_url)
    service.spawn("outbox relay", relay.run())
    sync = Sync(engine, service.stopping)
    service.spawn("key versions", sync.run())
    # One job: each keeps a connection while it works with another, and there are five.
    name, upkeep = "console upkeep", partial(_purge, engine, settings.action_retention_days)
    service.spawn(name, periodic.every(engine, name, PURGE_SECONDS, upkeep))

    app = application.create_app(internal_key=settings.internal_api_key.get_secret_value())
    page.dress(settings.company.name, style(settings.company.accent))
    door = Door(engine, settings)
    app.middlewares.extend(
        [errors_as_pages, door.same_origin, application.unavailable_when(postgres.is_transient)]
    )
    notices = Notices(settings.public_base_url)
    operator_keys = settings.operator_keys.get_secret_value()
    gateway = await service.enter(
        Gateway.open(settings.gateway_url, operator_keys, settings.tls_dir)
    )
    live, bulk = Live(gateway), Bulk(engine, gateway)
    service.spawn("live", live.run())
    for name, seconds, job, on_each in (
        ("console samples", samples.SECONDS, partial(samples.take, engine, gateway), False),
        ("bulk actions", IDLE_SECONDS, bulk.run, True),
    ):
        service.spawn(name, periodic.every(engine, name, seconds, job, on_each=on_each))
    site = Site(
        engine=engine, door=door, gateway=gateway, looks=Looks(engine), bulk=bulk,
        keys=Keys(engine, sync, notices), people=People(engine, settings.ways, notices),
        logins=Logins(engine, Passwords(), settings.ways, operator_keys, notices),
        queues_url=settings.rabbitmq_ui_url.rstrip("/"), set_up=settings.set_up,
    )  # fmt: skip
    ApiRoutes(engine, site.keys, site.people, sync, acts).add_to(app)
    routes.add_to(app, site)
    LiveRoutes(door, live).add_to(app)
    if settings.oidc_issuer:
        provider = Provider(
            await service.enter(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())),
            settings.oidc_issuer,
            settings.oidc_client_id,
            settings.oidc_client_secret.get_secret_value(),
            settings.public_base_url.rstrip("/") + CALLBACK,
        )
        OidcRoutes(door, site.logins, provider, Tokens(operator_keys)).add_to(app)
    links = {"gateway": SecretStr(settings.gateway_url)}
    HealthRoute(
        partial(_health, engine), service.name, settings, broker, MIGRATIONS, links=links
    ).add_to(app)
    await server.serve_all(service, app, settings, links)


async def _health(engine: AsyncEngine) -> dict[str, Any]:
    database, restored = await health.postgres(engine, versions.open_restores)
    if restored is None:
        return {"status": "unhealthy", "components": {"postgres": database}}
    keys = {"status": "healthy"}
    if restored:
        keys = {"status": "unhealthy", "detail": "restored: see ostoja keys accept-restore"}
    return {"status": keys["status"], "components": {"postgres": database, "keys": keys}}


async def _purge(engine: AsyncEngine, action_days: int) -> None:
    async with engine.begin() as tx:
        for name in ("purge_tries", "purge_invitations", "forget_unseen"):
            await run(tx, name)
        await run(tx, "purge_sessions", days=SESSION_DAYS)
    await run.alone(engine, "purge_acts", days=action_days)
    await erase_disabled(engine)


async def print_invitation(settings: ConsoleSettings) -> int:
    """Print a link for the first admin, if nobody can log in as admin yet."""
    database_url = settings.database_url.get_secret_value()
    async with postgres.connect(database_url, application_name="invitation") as engine:
        staff = People(engine, settings.ways, Notices(settings.public_base_url))
        link = await staff.first_invitation(settings.escalation_email)
    if link is not None:
        sys.stdout.write(f"{link}\n")
    return 0
