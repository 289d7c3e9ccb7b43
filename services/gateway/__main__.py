import sys

from libs.common.http import server
from libs.common.process import logs, settings
from libs.common.process.service import run
from libs.domain import forms
from services.gateway.settings import GatewaySettings
from services.gateway.targets import Targets


def check() -> None:
    """:raises SystemExit: names the fault that would stop a start; alerts checks alerts.toml"""
    _checked(settings.load(GatewaySettings))


def _checked(configured: GatewaySettings) -> tuple[Targets, forms.Forms]:
    if configured.console_url is not None and configured.console_internal_key is None:
        raise SystemExit("CONSOLE_INTERNAL_KEY: CONSOLE_URL needs it")
    targets = Targets.read(configured.alerts_config)
    known = forms.load(configured.forms_config, configured.sandbox_site)
    for name, form in known.items():
        if form.proof == "on" and configured.form_keys is None:
            raise SystemExit(f'FORM_KEYS is not set, and forms.{name} has proof = "on"')
    told = any(form.alert == "always" for form in known.values())
    if told and not targets.knows_event("lead.submitted"):
        raise SystemExit(
            f'ALERTS_CONFIG {configured.alerts_config}: [routes] needs "lead.submitted" for the '
            'leads of forms; or give each form alert = "qualified"'
        )
    return targets, known


def main() -> int | str:
    from services.gateway import app, pages, workers

    configured = settings.load(GatewaySettings)
    targets, known = _checked(configured)
    server.raise_descriptors(configured.max_connections)
    logs.configure("gateway", configured.log_level)
    pages.dress(configured.company_config)
    link = workers.link_of_environment()
    if link is None and configured.gateway_workers > 1:
        return run("gateway", lambda service: workers.supervise(service, configured))
    return run(
        "gateway",
        lambda service: app.start(service, configured, targets, known, link),
        drain_delay=configured.drain_delay_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
