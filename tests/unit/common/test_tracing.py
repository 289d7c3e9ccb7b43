import pytest
from opentelemetry.trace import INVALID_SPAN, SpanKind

from libs.common.process import logs, tracing


def test_a_client_s_own_id_gives_a_trace_id_that_is_valid_and_always_the_same() -> None:
    for given in ("order-4711", "0" * 32, "CF10554E5B2BF2C090F44388033F1789"):
        assert tracing.trace_id(given) == tracing.trace_id(given)
        assert 0 < tracing.trace_id(given) < 1 << 128


def test_without_a_collector_nothing_is_traced() -> None:
    with tracing.span(SpanKind.SERVER, "GET /") as span:
        assert span is INVALID_SPAN
        assert tracing.headers(None) == {}


async def test_a_message_of_another_request_does_not_continue_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # nothing is exported
    ours, another = "a" * 32, "b" * 32
    async with tracing.exporting("test"):
        token = logs.request_id.set(ours)
        with tracing.span(SpanKind.SERVER, "GET /"):
            assert tracing.headers(ours)["traceparent"].startswith(f"00-{ours}-")
            assert tracing.headers(another) == tracing.headers(None) == {}
        logs.request_id.reset(token)
