"""Traces by OpenTelemetry, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

A trace has the id of its request if that is 32 hexadecimal digits, as ours are. The id is in the
response, log lines and ledger rows. So an alert that is retried from its row days later is in the
trace of its request, without any header.

The SDK's own variables apply (sampling, headers, resource attributes). Span names and attributes
come from closed sets, like metric labels: no e-mail addresses, texts or keys.
"""

import asyncio
import hashlib
import os
import re
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from libs.common.process import logs

FLUSH_SECONDS = 3.0
"""How long a stop waits for the last spans to be exported; the rest are lost."""

_W3C = TraceContextTextMapPropagator()
_IS_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
UNTRACED: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)
_tracer: trace.Tracer | None = None


def span(
    kind: SpanKind, name: str, sender: Mapping[str, str] | None = None
) -> AbstractContextManager[Span]:
    """Trace the block.

    :param sender: headers of the caller whose trace is continued (`traceparent`, W3C)
    """
    if _tracer is None:
        return UNTRACED
    return _tracer.start_as_current_span(
        name,
        _W3C.extract(sender) if sender else None,
        kind,
        record_exception=False,  # its text may contain an e-mail address
        set_status_on_exception=False,
    )


def headers(request_id: str | None) -> dict[str, str]:
    """Return the headers by which another process continues the current trace.

    Empty for a message of another request (in a batch, or requeued from a row): its reader starts a
    new span in the trace of that request.
    """
    carrier: dict[str, str] = {}
    if _tracer is not None and request_id == logs.request_id.get():
        _W3C.inject(carrier)
    return carrier


def trace_id(request_id: str) -> int:
    """Return the trace id of a request id; a client's id of another form is hashed."""
    if _IS_TRACE_ID.fullmatch(request_id):
        return int(request_id, 16)
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16])


@asynccontextmanager
async def exporting(service: str) -> AsyncIterator[None]:
    """Export spans while this is open; nothing waits for an unavailable collector."""
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        yield
        return
    # Imported here, because it takes some megabytes and threads, needed only with tracing.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class _Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            request_id = logs.request_id.get()
            return trace_id(request_id) if request_id else super().generate_trace_id()

    global _tracer  # noqa: PLW0603 - one for the process, as loggers and metrics are
    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAMESPACE: "ostoja", SERVICE_NAME: service}),
        id_generator=_Ids(),
        shutdown_on_exit=False,  # it would wait 30 s for an unavailable collector
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("ostoja")
    try:
        yield
    finally:
        _tracer = None
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        await asyncio.to_thread(last.join, FLUSH_SECONDS)
