import sys

from libs.common import logs, settings
from libs.common.service import run
from services.gateway import app, workers
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets


def main() -> int | str:
    configured = settings.load(GatewaySettings)
    targets = Targets.read(configured.alerts_config)
    logs.configure("gateway", configured.log_level)
    line = workers.Line.of_environment()
    if line is None and configured.gateway_workers > 1:
        return run("gateway", lambda service: workers.supervise(service, configured))
    return run("gateway", lambda service: app.start(service, configured, targets, line))


if __name__ == "__main__":
    sys.exit(main())
