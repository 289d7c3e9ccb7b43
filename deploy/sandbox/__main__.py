"""`python -m deploy.sandbox`: a stand-in for Slack, Monday.com, SMS, webhooks and SMTP.

It reads its settings and opens three ports: the providers, the mail API and SMTP.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from pydantic import Field, SecretStr

from deploy.sandbox import mailpit, providers, site
from deploy.sandbox.providers import PROVIDERS
from deploy.sandbox.recorder import Recorder
from deploy.sandbox.smtp import Smtp
from libs.common.process import logs
from libs.common.process.logs import log
from libs.common.process.service import Service, run
from libs.common.process.settings import Settings, load


class SandboxSettings(Settings):
    sandbox_host: str = "127.0.0.1"
    sandbox_port: int = Field(8090, ge=1, le=65535)
    sandbox_mail_port: int = Field(8025, ge=1, le=65535)
    sandbox_smtp_port: int = Field(1025, ge=1, le=65535)
    public_base_url: str = "http://127.0.0.1:8080"  # the gateway, for the pages of the site
    sandbox_slack_file: Path | None = None
    webhook_secret: SecretStr | None = None  # unset: signatures are recorded, not checked
    service_api_key: SecretStr = SecretStr("")  # unset: no mail comes back


def main() -> int | str:
    settings = load(SandboxSettings)
    logs.configure("sandbox")
    # No access log: requests are recorded anyway, and logging costs time in benchmarks.
    for chatty in ("libs.common.http.application", "mail.log"):
        logging.getLogger(chatty).setLevel("WARNING")

    async def start(service: Service) -> None:
        host = settings.sandbox_host
        recorder = Recorder([*PROVIDERS, "email"])
        secret = settings.webhook_secret
        key = secret.get_secret_value() if secret else None
        app = providers.create_app(recorder, key, settings.sandbox_slack_file)
        gateway = settings.public_base_url.rstrip("/")
        site.add_routes(app, gateway)
        await service.enter(_http(app, host, settings.sandbox_port))
        mails = mailpit.create_app(recorder, gateway, settings.service_api_key.get_secret_value())
        await service.enter(_http(mails, host, settings.sandbox_mail_port))
        await service.enter(_smtp(recorder, host, settings.sandbox_smtp_port))
        log.info(
            "sandbox.listening",
            http=settings.sandbox_port,
            mail=settings.sandbox_mail_port,
            smtp=settings.sandbox_smtp_port,
        )

    return run("sandbox", start)


@asynccontextmanager
async def _http(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    # handler_cancellation: a client that disconnects ends its hanging or delayed request.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _smtp(recorder: Recorder, host: str, port: int) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Smtp(recorder), host, port, backlog=1024)
    try:
        yield
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
