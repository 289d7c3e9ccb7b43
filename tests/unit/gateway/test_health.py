from typing import Any

import pytest

from services.gateway.health import _overall

UP, DOWN = {"status": "healthy"}, {"status": "unhealthy"}
NO_LEDGER = {"status": "degraded", "components": {"postgres": DOWN, "rabbitmq": UP}}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "healthy"),
        ({"redis": DOWN}, "degraded"),
        ({"rabbitmq": DOWN}, "degraded"),
        ({"alerts": DOWN}, "degraded"),
        ({"alerts": NO_LEDGER}, "degraded"),
        ({"alerts": DOWN, "consent": DOWN, "followups": DOWN}, "degraded"),
        ({"rabbitmq": DOWN, "alerts": DOWN}, "unhealthy"),
        ({"rabbitmq": DOWN, "alerts": NO_LEDGER}, "unhealthy"),
    ],
)
def test_it_is_unhealthy_only_when_no_alert_can_be_taken(
    changes: dict[str, Any], status: str
) -> None:
    names = ("redis", "rabbitmq", "followups", "consent", "alerts")
    assert _overall(dict.fromkeys(names, UP) | changes) == status
