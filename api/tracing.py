"""Traces of requests and of the stages that they lead to, for OpenTelemetry; without its packages only their ids are passed on.

A job keeps the W3C ``traceparent`` of the request that made it, whether or not anybody collects traces here, and the worker's spans
continue it. No SDK of OpenTelemetry is imported unless ``SPLATWORKS_OTLP_ENDPOINT`` is set.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

from api.settings import Settings
from engine.errors import InputError

Attributes = Mapping[str, str | int | float]
# https://www.w3.org/TR/trace-context/: version, trace id, parent id, flags; version ff and ids of zeros are invalid.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def checked(traceparent: str | None) -> str | None:
    """Return a traceparent that is one, else None: a client's mistake costs it the trace, not the request."""
    return traceparent if traceparent is not None and TRACEPARENT.fullmatch(traceparent) else None


class Span:
    """A piece of work; this one is not recorded and passes on the trace that it was given."""

    def __init__(self, traceparent: str | None) -> None:
        self.traceparent = traceparent

    def name(self, name: str) -> None:
        """Give another name, known only now."""

    def tell(self, attributes: Attributes) -> None:
        """Add what is known now."""

    def fail(self, words: str) -> None:
        """Say that the work failed."""


class Tracer(Protocol):
    """Makes spans."""

    def span(
        self, name: str, parent: str | None, kind: str = "internal", attributes: Attributes | None = None
    ) -> contextlib.AbstractContextManager[Span]:
        """Return a block whose time is a span; it continues ``parent``, a traceparent, when that is one."""

    def close(self) -> None:
        """Send what waits."""


class NoTracer:
    """Records nothing."""

    @contextlib.contextmanager
    def span(self, name: str, parent: str | None, kind: str = "internal", attributes: Attributes | None = None) -> Iterator[Span]:
        """Pass the trace on."""
        del name, kind, attributes
        yield Span(checked(parent))

    def close(self) -> None:
        """Do nothing: nothing waits."""


class RecordedSpan(Span):
    """A span of OpenTelemetry."""

    def __init__(self, span: Any) -> None:
        self._span = span
        context = span.get_span_context()
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}")

    def name(self, name: str) -> None:
        """Give another name, known only now."""
        self._span.update_name(name)

    def tell(self, attributes: Attributes) -> None:
        """Add what is known now."""
        self._span.set_attributes(attributes)

    def fail(self, words: str) -> None:
        """Say that the work failed."""
        self._span.set_status(import_module("opentelemetry.trace").StatusCode.ERROR, words)


class OtelTracer:
    """Records spans with OpenTelemetry's ``provider``."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("splatworks")
        self._trace = import_module("opentelemetry.trace")
        self._propagator = import_module("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def span(self, name: str, parent: str | None, kind: str = "internal", attributes: Attributes | None = None) -> Iterator[Span]:
        """Record the block."""
        carried = self._propagator.extract({"traceparent": checked(parent) or ""})
        kinds = self._trace.SpanKind
        kind = kinds.SERVER if kind == "server" else kinds.INTERNAL
        # Not made current: request and stage are passed by hand, and a stream's block may end in another context.
        span = self._tracer.start_span(name, context=carried, kind=kind, attributes=dict(attributes or {}))
        try:
            yield RecordedSpan(span)
        finally:
            span.end()

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


def open_tracer(settings: Settings, process: str) -> Tracer:
    """Return what records the spans of this process (``api``, ``worker``); it starts a thread, so open it after a fork.

    Raises ``InputError`` when an endpoint is set and the packages of the extra ``otel`` are missing.
    """
    if not settings.otlp_endpoint:
        return NoTracer()
    try:
        exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        sdk, export, resources = (import_module(f"opentelemetry.sdk.{name}") for name in ("trace", "trace.export", "resources"))
    except ImportError as error:
        detail = f"SPLATWORKS_OTLP_ENDPOINT is set, and {error.name} is not installed"
        raise InputError("input.no_tracing", "No OpenTelemetry", detail, "pip install 'splatworks[otel]', or unset it.") from error
    resource = resources.Resource.create({"service.name": f"splatworks-{process}"})
    provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
    address = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(
        export.BatchSpanProcessor(exporter.OTLPSpanExporter(endpoint=address, timeout=5), schedule_delay_millis=1000)
    )
    return OtelTracer(provider)
