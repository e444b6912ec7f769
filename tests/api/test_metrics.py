"""What Prometheus reads, and what readiness says."""

import time
from datetime import timedelta

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event

from api.db import migrate, now
from api.models import Job, JobStage, WebhookDelivery, WebhookEndpoint, new_id
from api.services import leases, system, tallies
from tests.api.conftest import is_problem
from tests.photos import upload
from tests.s3 import Link
from tests.services import installed


def scraped(client: httpx.Client) -> dict[tuple, float]:
    """Every sample by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    return {(sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples}


def start(client: httpx.Client, capture: str) -> str:
    assert upload(client, capture, 3).status_code == 201
    return client.post("/v1/jobs", json={"capture_id": capture}).json()["id"]


def test_figures_of_an_empty_installation_are_all_there_and_zero(client):
    found = scraped(client)
    for state in ("queued", "running", "cancelling", "succeeded", "failed", "cancelled"):
        assert found["splatworks_jobs", ("state", state)] == 0
    for name in ("leases_expired", "fenced_writes_refused", "upload_bytes", "webhook_attempts", "jobs_ended"):
        assert found[f"splatworks_{name}_total",] == 0
    assert found["splatworks_queue_oldest_seconds", ("queue", "cpu")] == 0
    assert found["splatworks_processes", ("kind", "dispatcher")] == 0
    assert found["splatworks_database_up",] == found["splatworks_broker_up",] == 1
    assert found["splatworks_disk_free_bytes",] > 1 << 20
    assert found["process_resident_memory_bytes",] > 1 << 20


def test_waiting_jobs_their_age_and_bytes_received_are_counted(client, capture, db):
    job = start(client, capture)
    with db.writing() as session:
        session.get_one(Job, job).created_at = now(session) - timedelta(seconds=100)
        system.see_process(session, new_id(), system.Alive("dispatcher", "here", 1))
    found = scraped(client)
    assert found["splatworks_jobs", ("state", "queued")] == found["splatworks_queue_jobs", ("queue", "cpu")] == 1
    assert 100 <= found["splatworks_queue_oldest_seconds", ("queue", "cpu")] < 130
    assert found["splatworks_processes", ("kind", "dispatcher")] == 1
    assert found["splatworks_upload_bytes_total",] == sum(
        photo["size_bytes"] for photo in client.get(f"/v1/captures/{capture}").json()["photos"]
    )


def test_ended_jobs_lost_workers_and_the_time_of_stages_are_counted(client, capture, db, installation):
    job, settings = start(client, capture), installation.settings
    holder = leases.Holder("elsewhere", 1, "x")
    with db.writing() as session:
        assert leases.claim(session, settings, job, "cpu", holder) is not None
    with db.writing() as session:
        assert leases.lose(session, settings, session.get_one(Job, job))
    with db.writing() as session:
        session.get_one(Job, job).not_before = None
        session.flush()
        claim = leases.claim(session, settings, job, "cpu", holder)
        assert claim is not None
        leases.finish_stage(session, settings, claim, leases.Finished(2.5, False, {}))
        tallies.observe(session, "stage_seconds", 90_000.0, stage="ingest")
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 202
    with db.writing() as session:
        leases.end_cancelled(session, leases.Claim(job, claim.fence, "poses", "cpu"))
    found = scraped(client)
    assert found["splatworks_leases_expired_total",] == 1
    assert found["splatworks_jobs_ended_total", ("state", "cancelled")] == found["splatworks_jobs", ("state", "cancelled")] == 1
    buckets = {dict(key[1:])["le"]: value for key, value in found.items() if key[0] == "splatworks_stage_seconds_bucket"}
    assert (buckets["1.0"], buckets["5.0"], buckets["14400.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert found["splatworks_stage_seconds_sum", ("stage", "ingest")] == 90_002.5
    assert found["splatworks_stage_seconds_count", ("stage", "ingest")] == 2


def test_messages_that_wait_too_long_show(client, db):
    with db.writing() as session:
        moment = now(session)
        endpoint = WebhookEndpoint(url="http://x", secret="s", types=[], created_at=moment)
        session.add(endpoint)
        session.flush()
        for late_s in (50, 10, -100):
            due = {"state": "pending", "next_at": moment - timedelta(seconds=late_s), "created_at": moment}
            session.add(WebhookDelivery(endpoint_id=endpoint.id, type="job.succeeded", payload={}, **due))
    found = scraped(client)
    assert found["splatworks_webhooks_due",] == 2
    assert 50 <= found["splatworks_webhooks_late_seconds",] < 80
    checks = is_problem(client.get("/readyz"), 503, "capacity.not_ready")["data"]["checks"]
    assert 50 <= int(checks["outbox_late_s"]) < 80


def test_requests_are_counted_by_route_and_not_by_id(client):
    assert client.post("/v1/captures", json={}).status_code == 201
    for job in (new_id(), new_id()):
        client.get(f"/v1/jobs/{job}")
    client.get("/nowhere/" + new_id())
    client.request("BREW", "/healthz")
    found = scraped(client)
    assert found["splatworks_http_requests_total", ("method", "GET"), ("route", "/v1/jobs/{job_id}"), ("status", "404")] == 2
    assert found["splatworks_http_requests_total", ("method", "GET"), ("route", "none"), ("status", "404")] == 1
    assert found["splatworks_http_requests_total", ("method", "POST"), ("route", "/v1/captures"), ("status", "201")] == 1
    assert found["splatworks_http_request_seconds_count", ("method", "POST"), ("route", "/v1/captures")] == 1
    assert any(key[:2] == ("splatworks_http_requests_total", ("method", "other")) for key in found)


def test_openmetrics_is_spoken_to_those_who_ask(client):
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_figures_come_without_a_database_and_say_so(installation, tmp_path):
    installation.settings = installation.settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/other.db"})
    migrate(installation.settings)
    with installation.api() as client:
        migrate(installation.settings, "base")
        found = scraped(client)
        assert found["splatworks_database_up",] == 0
        assert found["splatworks_disk_free_bytes",] > 0


def test_no_question_of_the_figures_reads_a_table_that_grows_without_an_index(client, capture, db):
    """SQLite tells how it will read; tables of one row a process or count may be read whole."""
    from api import metrics

    if db.engine.dialect.name != "sqlite":
        return
    start(client, capture)
    asked = []
    event.listen(db.engine, "before_cursor_execute", lambda _c, _u, statement, values, _x, _m: asked.append((statement, values)))
    with db.reading() as session:
        list(metrics.tables(session))
    with db.engine.connect() as connection:
        for statement, values in [each for each in asked if each[0].startswith("SELECT")]:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            read_whole = {word for row in plan if row[3].startswith("SCAN") and "INDEX" not in row[3] for word in row[3].split()[1:2]}
            assert read_whole <= {"tally", "process", "(subquery-1)", "anon_1"}, plan
    assert not any(JobStage.__tablename__ in statement or "FROM event" in statement for statement, _ in asked)


def test_readiness_names_storage_that_is_away_and_answers_soon(stack, tmp_path):
    if stack.s3 is None:
        return
    link = Link(stack.s3.endpoint)
    with installed(stack, tmp_path / "data", storage_options=stack.s3.options(link.endpoint)) as made, made.api() as client:
        assert is_problem(client.get("/readyz"), 503, "capacity.not_ready")["data"]["checks"]["storage"] == "ok"
        link.cut()
        began = time.monotonic()
        assert "does not answer" in is_problem(client.get("/readyz"), 503, "capacity.not_ready")["data"]["checks"]["storage"]
        assert time.monotonic() - began < 20
        assert client.get("/healthz").status_code == 200
