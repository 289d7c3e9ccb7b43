import sys

from libs.common import logs, settings
from libs.common.service import run
from services.gateway import app
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets


def main() -> int:
    configured = settings.load(GatewaySettings)
    targets = Targets.read(configured.alerts_config)
    logs.configure("gateway", configured.log_level)
    return run("gateway", lambda service: app.start(service, configured, targets))


if __name__ == "__main__":
    sys.exit(main())
