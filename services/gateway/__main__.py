"""`python -m services.gateway`: serve."""

import sys

from libs.common import logs
from libs.common.service import run
from libs.common.settings import load
from services.gateway.app import start
from services.gateway.settings import GatewaySettings

if __name__ == "__main__":
    settings = load(GatewaySettings)
    logs.configure("gateway", settings.log_level)
    sys.exit(run("gateway", lambda service: start(service, settings)))
