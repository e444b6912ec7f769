"""Traces: what comes in goes on to the job, whether or not anybody records it; what records them is not loaded unasked."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from api import observed, tracing
from api.models import Job
from api.settings import Settings
from tests.photos import upload
from tests.services import REPOSITORY

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"
INVALID = [
    "",
    "x",
    GIVEN.upper(),
    GIVEN + "0",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    GIVEN + "\n",
]


@pytest.fixture
def recorded() -> tuple[InMemorySpanExporter, tracing.OtelTracer]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter, tracing.OtelTracer(provider)


@pytest.mark.parametrize("text", INVALID)
def test_what_is_no_traceparent_counts_as_none(text, recorded):
    assert tracing.checked(text) is None
    with tracing.NoTracer().span("a", text) as span:
        assert span.traceparent is None
    with recorded[1].span("a", text) as span:
        assert TRACE not in span.traceparent


def test_a_span_continues_what_it_is_given_and_is_continued(recorded):
    exporter, tracer = recorded
    with tracer.span("outer", GIVEN, kind="server") as outer:
        outer.name("renamed")
        outer.tell({"n": 3})
    with tracer.span("inner", outer.traceparent, attributes={"stage": "train"}) as inner:
        inner.fail("why")
    first, second = exporter.get_finished_spans()
    assert (first.name, first.kind, first.attributes["n"]) == ("renamed", SpanKind.SERVER, 3)
    assert f"{first.context.trace_id:032x}" == f"{second.context.trace_id:032x}" == TRACE
    assert (f"{first.parent.span_id:016x}", second.parent.span_id) == (PARENT, first.context.span_id)
    assert (second.status.status_code, second.status.description, second.attributes["stage"]) == (StatusCode.ERROR, "why", "train")


def test_a_span_ends_when_its_work_breaks(recorded):
    with pytest.raises(KeyError), recorded[1].span("a", None):
        raise KeyError
    assert len(recorded[0].get_finished_spans()) == 1


def test_the_trace_of_a_request_is_kept_on_its_job(client, capture, db):
    assert upload(client, capture, 3).status_code == 201
    for header, kept in ((GIVEN, GIVEN), ("nonsense", None)):
        job = client.post("/v1/jobs", json={"capture_id": capture}, headers={"traceparent": header}).json()["id"]
        with db.reading() as session:
            assert session.get_one(Job, job).traceparent == kept


def test_requests_are_spans_named_by_their_route_and_jobs_keep_the_span(installation, recorded, monkeypatch, db):
    exporter, tracer = recorded
    monkeypatch.setattr("api.app.open_tracer", lambda _settings, process: {"api": tracer}[process])
    with installation.api() as client:
        capture = client.post("/v1/captures", json={}).json()["id"]
        assert upload(client, capture, 3).status_code == 201
        job = client.post("/v1/jobs", json={"capture_id": capture}, headers={"traceparent": GIVEN}).json()["id"]
        client.get("/nowhere")
    spans = {(span.name, span.attributes["http.response.status_code"]): span for span in exporter.get_finished_spans()}
    span = spans["POST /v1/jobs", 202]
    assert f"{span.context.trace_id:032x}" == TRACE
    assert spans["GET none", 404].attributes["http.route"] == observed.UNMATCHED
    with db.reading() as session:
        assert session.get_one(Job, job).traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"


def run_without_packages(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process where nothing of the extra can be found; FastAPI itself brings OpenTelemetry's api."""
    hook = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'opentelemetry.proto', 'google')):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
"""
    return subprocess.run(
        [sys.executable, "-c", hook + code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/nonexistent", **environment},
    )


def test_the_api_and_the_worker_start_without_the_packages():
    code = "import api.app, worker.tasks; api.app.create_app(); print([m for m in sys.modules if '.sdk' in m or '.exporter' in m])"
    shown = run_without_packages(code)
    assert (shown.returncode, shown.stdout.strip()) == (0, "[]"), shown.stderr


def test_an_endpoint_without_the_packages_is_refused_with_what_to_install():
    shown = run_without_packages("import api.app; api.app.create_app()", SPLATWORKS_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert shown.returncode != 0
    assert "SPLATWORKS_OTLP_ENDPOINT is set, and opentelemetry" in shown.stderr


def test_a_tracer_sends_to_a_collector_that_is_away_without_holding_anybody_up(tmp_path):
    tracer = tracing.open_tracer(Settings(data_dir=tmp_path, otlp_endpoint="http://127.0.0.1:1"), "api")
    with tracer.span("a", GIVEN) as span:
        assert TRACE in span.traceparent
    assert not isinstance(tracer, tracing.NoTracer)
