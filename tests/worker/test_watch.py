"""What is seen of a worker from outside: its lines of log, its spans, and that it stands back."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engine.options import STAGES
from tests.photos import upload
from tests.services import until
from tests.worker.conftest import job_in, start_job

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector() -> Iterator[tuple[str, list]]:
    """An OpenTelemetry collector's receiving end: its address, and the spans that came."""
    spans: list = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_worker_names_what_it_works_on_and_continues_the_trace_of_the_request(service, collector):
    endpoint, spans = collector
    installation = service.installation
    with installation.api() as client:
        capture = client.post("/v1/captures", json={}).json()["id"]
        assert upload(client, capture, 3).status_code == 201
        given = f"00-{TRACE}-00f067aa0ba902b7-01"
        job = client.post("/v1/jobs", json={"capture_id": capture}, headers={"traceparent": given}).json()["id"]
        service.tell("poses", fail="internal.something", times=1)
        installation.start_worker(SPLATWORKS_LOG_FORMAT="json", SPLATWORKS_OTLP_ENDPOINT=endpoint)
        installation.start_dispatcher()
        job_in(client, job, "succeeded", timeout_s=120)
    until(lambda: len(spans) >= len(STAGES) + 1, 60)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.parent_span_id.hex() for span in spans} == {"00f067aa0ba902b7"}
    assert {span.name for span in spans} == {f"stage {stage}" for stage in STAGES}
    told = [{each.key.partition(".")[2]: each.value for each in span.attributes} for span in spans]
    assert all(each["job"].string_value == job for each in told)
    # The second attempt at a stage is a span of its own, under another fence.
    poses = [
        (each["attempt"].int_value, each["fence"].int_value, each["state"].string_value)
        for each in told
        if each["stage"].string_value == "poses"
    ]
    assert poses == [(1, 1, "pending"), (2, 2, "done")]
    installation.end("worker")
    lines = [json.loads(line) for line in (installation.settings.data_dir / "worker.out").read_text().splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("job") == job]
    assert {line["attempt"] for line in mine} >= {1}
    assert all(line["fence"] >= 1 and line["attempt"] >= 1 and line["stage"] in STAGES for line in mine)
    ended = [(line["stage"], line["fence"]) for line in mine if line["message"].endswith("is done")]
    assert ended == [("ingest", 1), ("poses", 2), ("train", 2), ("compress", 2)]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)


def test_a_stage_stands_back_behind_the_api(service):
    installation = service.installation
    installation.settings = installation.settings.model_copy(update={"stage_nice": 5})
    service.tell("ingest", seconds=60)
    worker = installation.start_worker()
    installation.start_dispatcher()
    with installation.api() as client:
        start_job(client)
        until(lambda: service.started("ingest"), 60)
        (pid,) = service.started("ingest")
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, worker.pid) + 5)
