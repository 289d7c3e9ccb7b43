"""Traces, as a collector gets them by OTLP over HTTP from the whole system."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import NewStack
from tests.support.eventually import eventually
from tests.support.ports import HOST
from tests.support.system import Answer, fresh_address


class Collector:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self.server = TestServer(app)

    async def _take(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer collector key"
        self.bodies.append(await request.read())
        return web.Response()

    async def trace(self, answer: Answer, spans: int) -> dict[tuple[str, str], Span]:
        """Return the spans of a request by service and name, when there are so many."""
        trace_id = answer.headers["X-Request-ID"]
        found: dict[tuple[str, str], Span] = {}

        async def complete() -> bool:
            for body in self.bodies:
                for of_service in ExportTraceServiceRequest.FromString(body).resource_spans:
                    attributes = {each.key: each.value for each in of_service.resource.attributes}
                    service = attributes["service.name"].string_value
                    for span in of_service.scope_spans[0].spans:
                        if span.trace_id.hex() == trace_id:
                            found[service, span.name] = span
            return len(found) == spans

        await eventually(complete)
        return found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    started = Collector()
    await started.server.start_server()
    yield started
    await started.server.close()


async def test_a_trace_spans_gateway_and_services_without_personal_data(
    collector: Collector, new_stack: NewStack
) -> None:
    stack = new_stack(
        OTEL_EXPORTER_OTLP_ENDPOINT=str(collector.server.make_url("")),
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20collector%20key",
        OTEL_BSP_SCHEDULE_DELAY="200",
    )
    address = fresh_address()
    await stack.opt_in(address)
    asked = await stack.http("GET", f"/api/unsubscribe/status/{address}")
    alerted = await stack.http(
        "POST",
        "/api/alerts",
        {"event_type": "slack_alert", "payload": {"text": "nobody else's business"}},
        key="service",
        headers={"traceparent": "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01"},
    )

    # An answer names its trace.
    call = await collector.trace(asked, 2)
    alert = await collector.trace(alerted, 4)

    status = "GET /api/unsubscribe/status/{email}"
    assert call["consent", status].parent_span_id == call["gateway", status].span_id
    accepted = alert["gateway", "POST /api/alerts"]
    assert accepted.parent_span_id == b""  # a caller's trace is not ours
    taken_in = alert["alerts", "process alerts.intake"]
    assert taken_in.parent_span_id == accepted.span_id
    work = alert["alerts", "process alerts.slack"]
    assert alert["alerts", "deliver slack"].parent_span_id == work.span_id
    for told in (address.encode(), b"nobody else's"):
        assert not any(told in body for body in collector.bodies)


async def test_an_unavailable_collector_delays_neither_work_nor_stop(new_stack: NewStack) -> None:
    stack = new_stack(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{HOST}:1", OTEL_BSP_SCHEDULE_DELAY="200")
    await stack.alert("delivered all the same")

    await stack.in_slack("delivered all the same")
    await stack.stop("alerts")
    assert "service.stopped" in stack.log("alerts")
    assert "drain_timed_out" not in stack.log("alerts")
