"""No service takes the gateway's word for granted: each checks the role of who calls."""

import re
from inspect import signature
from typing import Any
from unittest.mock import MagicMock

import pytest
from aiohttp import web
from pytest_aiohttp.plugin import AiohttpClient

from libs.common.http.application import CALLER, INTERNAL_KEY, create_app
from libs.domain.scopes import Scope
from services.alerts.http.cases import CaseRoutes
from services.alerts.http.dlq import DlqRoutes
from services.alerts.http.heartbeats import HeartbeatRoutes
from services.alerts.http.intake import IntakeRoutes
from services.alerts.http.on_call import OnCallRoutes
from services.alerts.http.operations import OperationsRoutes
from services.alerts.http.silences import SilenceRoutes
from services.alerts.http.subscriptions import SubscriptionRoutes
from services.consent.http.admin import AdminRoutes
from services.consent.http.public import PublicRoutes
from services.console.api import ApiRoutes
from services.followups.http.acts import ActRoutes
from services.followups.http.followups import FollowupRoutes
from services.followups.http.leads import LeadRoutes
from services.followups.http.mail import MailRoutes
from services.followups.http.submissions import SubmissionRoutes
from services.gateway.door.access import Requirements
from services.gateway.door.clients import SCOPES, Role
from services.gateway.http import FORWARDED, Route
from tests.support.shipped import EXAMPLE

KEY = "k" * 16
INTERNAL = Route("POST", "/internal/alerts", "alerts", Requirements(Scope.ALERTS_WRITE))
INTERNAL_PINGS = Route("POST", "/internal/pings", "alerts", Requirements(Scope.ALERTS_WRITE))
INTERNAL_LEADS = Route("POST", "/internal/leads", "followups", Requirements(Scope.LEADS_WRITE))
ALERT = Route("GET", "/api/alerts/{id}", "alerts", Requirements(Scope.ALERTS_READ))
KEYED = [
    *(route for route in FORWARDED if route.requires.scope is not None),
    INTERNAL,
    INTERNAL_PINGS,
    INTERNAL_LEADS,
    ALERT,
]


def made(cls: type[Any]) -> Any:
    # None of them is reached; the days become a timedelta, and the company's file is read.
    nothing = MagicMock(suppression_retention_days=1, company_config=EXAMPLE / "company.toml")
    return cls(**dict.fromkeys(signature(cls).parameters, nothing))


def app_of(upstream: str) -> web.Application:
    app = create_app(internal_key=KEY)
    match upstream:
        case "alerts":
            operations = (
                OnCallRoutes,
                OperationsRoutes,
                SilenceRoutes,
                HeartbeatRoutes,
                SubscriptionRoutes,
            )
            for routes in (IntakeRoutes, DlqRoutes, CaseRoutes, *operations):
                made(routes).add_to(app)
        case "consent":
            made(AdminRoutes).add_to(app)
            made(PublicRoutes).add_to(app)
        case "followups":
            made(FollowupRoutes).add_to(app)
            made(SubmissionRoutes).add_to(app)
            made(LeadRoutes).add_to(app)
            made(ActRoutes).add_to(app)
            made(MailRoutes).add_to(app)
        case "console":
            made(ApiRoutes).add_to(app)
    return app


@pytest.mark.parametrize("route", KEYED, ids=lambda route: f"{route.method} {route.path}")
async def test_a_keyed_route_refuses_every_other_role(
    route: Route, aiohttp_client: AiohttpClient
) -> None:
    client = await aiohttp_client(app_of(route.upstream))
    path = re.sub(r"\{\w+(:.*)?\}", "x", route.path)
    # A key of one's own with another scope than those of the admin counts as the service's.
    admitted = [role for role in Role if route.requires.scope in SCOPES.get(role, ())]
    admitted = admitted or [Role.SERVICE]
    for role in ({*Role} - {*admitted}) | {None}:
        headers = {INTERNAL_KEY: KEY} | ({CALLER: role} if role else {})
        async with client.request(route.method, path, headers=headers) as answer:
            assert answer.status == 401, role
            assert (await answer.json())["detail"] == f"this requires the {admitted[0]} key"
