import sys

from libs.common.http import server
from libs.common.process import logs, settings
from libs.common.process.service import run
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets


def check() -> None:
    """:raises SystemExit: names the fault that would stop a start; alerts checks alerts.toml"""
    settings.load(GatewaySettings)


def main() -> int | str:
    from services.gateway import app
    from services.gateway.supervision import workers

    configured = settings.load(GatewaySettings)
    targets = Targets.read(configured.alerts_config)
    server.raise_descriptors(configured.max_connections)
    logs.configure("gateway", configured.log_level)
    link = workers.link_of_environment()
    if link is None and configured.gateway_workers > 1:
        return run("gateway", lambda service: workers.supervise(service, configured))
    return run(
        "gateway",
        lambda service: app.start(service, configured, targets, link),
        drain_delay=configured.drain_delay_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
