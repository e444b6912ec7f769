"""The client against a server that breaks in the ways servers break."""

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

import cli.client
from api.errors import RequestError
from cli.client import Client, batches, parse_events, problem
from engine.errors import CapacityError, InternalError

CONTENT = bytes(range(256)) * 4096
ASSET = {"name": "scene.sog", "sha256": hashlib.sha256(CONTENT).hexdigest(), "size_bytes": len(CONTENT)}


class Faulty(BaseHTTPRequestHandler):
    """Sends the file with Range, but breaks off after 300,000 bytes of each answer; fails every first POST."""

    cut_bytes = 300_000
    ranges: list[str | None]
    posts: list[tuple[str | None, bytes]]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.server.cut_bytes])
        self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((self.headers.get("Idempotency-Key"), body))
        if len(self.server.posts) == 1:
            answer, status = b'{"title": "Busy", "detail": "come again", "retryable": true, "code": "capacity.busy"}', 503
        else:
            answer, status = b'{"id": "x"}', 202
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(cli.client, "FIRST_WAIT_S", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    server.ranges, server.posts, server.cut_bytes = [], [], 300_000
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def client_of(server: ThreadingHTTPServer) -> Client:
    return Client(f"http://127.0.0.1:{server.server_address[1]}")


def test_download_goes_on_where_the_line_broke_and_checks_the_whole(server, tmp_path):
    counted: list[int] = []
    with client_of(server) as client:
        client.download("j", ASSET, tmp_path / "out.sog", counted.append)
    assert (tmp_path / "out.sog").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out.sog"]


def test_download_continues_what_an_earlier_run_left(server, tmp_path):
    server.cut_bytes = len(CONTENT)
    part = tmp_path / f"out.sog.{ASSET['sha256'][:12]}.part"
    part.write_bytes(CONTENT[:1000])
    counted: list[int] = []
    with client_of(server) as client:
        client.download("j", ASSET, tmp_path / "out.sog", counted.append)
    assert server.ranges == ["bytes=1000-"]
    assert sum(counted) == len(CONTENT)


def test_download_of_a_whole_part_needs_no_byte_more(server, tmp_path):
    (tmp_path / f"out.sog.{ASSET['sha256'][:12]}.part").write_bytes(CONTENT)
    with client_of(server) as client:
        client.download("j", ASSET, tmp_path / "out.sog", lambda _count: None)
    assert (tmp_path / "out.sog").read_bytes() == CONTENT


def test_damaged_download_is_refused_and_removed(server, tmp_path):
    server.cut_bytes = len(CONTENT)
    damaged = {**ASSET, "sha256": "0" * 64}
    with client_of(server) as client, pytest.raises(InternalError, match="SHA-256"):
        client.download("j", damaged, tmp_path / "out.sog", lambda _count: None)
    assert not list(tmp_path.iterdir())


def test_download_gives_up_after_some_tries_and_keeps_the_part(server, tmp_path):
    server.cut_bytes = 1000
    with client_of(server) as client, pytest.raises(CapacityError, match="does not answer"):
        client.download("j", ASSET, tmp_path / "out.sog", lambda _count: None)
    (part,) = tmp_path.iterdir()
    assert CONTENT.startswith(part.read_bytes())
    assert part.stat().st_size == 1000 * cli.client.TRIES


def test_post_with_a_key_is_sent_again_with_the_same_key(server):
    with client_of(server) as client:
        assert client.post("/v1/jobs", {"a": 1}, idempotency_key="k") == {"id": "x"}
    assert server.posts == [("k", b'{"a":1}')] * 2


def test_post_without_a_key_is_sent_once(server):
    with client_of(server) as client, pytest.raises(CapacityError, match="come again"):
        client.post("/v1/captures", {})
    assert len(server.posts) == 1


def test_a_server_that_is_not_there_is_named_at_once(monkeypatch):
    monkeypatch.setattr(cli.client, "FIRST_WAIT_S", 60.0)
    with Client("http://127.0.0.1:9") as client, pytest.raises(CapacityError) as caught:
        client.get("/v1/jobs")
    assert "http://127.0.0.1:9" in caught.value.detail
    assert "splatworks serve" in caught.value.hint


def test_a_problem_keeps_title_detail_hint_and_errors():
    body = {"title": "T", "detail": "D", "hint": "H", "code": "input.x", "retryable": False, "errors": [{"name": "a"}]}
    error = problem(httpx.Response(422, json=body, request=httpx.Request("GET", "http://h/p")))
    assert isinstance(error, RequestError)
    assert (error.title, error.detail, error.hint, error.code, error.data) == ("T", "D", "H", "input.x", {"errors": [{"name": "a"}]})


@pytest.mark.parametrize("text", ["<html>", "[]", "3", ""])
def test_an_answer_that_is_no_problem_still_says_what_was_asked(text):
    error = problem(httpx.Response(502, text=text, request=httpx.Request("GET", "http://h/p")))
    assert isinstance(error, CapacityError)
    assert error.title == "HTTP 502"
    assert "http://h/p" in error.detail


def test_event_streams_are_read_with_comments_ids_and_lines_in_any_number():
    text = (
        'retry: 1000\nevent: snapshot\nid: 4\ndata: {"a":\ndata: 1}\n\n: ping\n\nevent: progress\ndata: {}\n\nid: 6\n\ndata: {"b": 2}\n\n'
    )
    events = list(parse_events(iter(text.split("\n"))))
    assert [(event.type, event.data, event.id) for event in events] == [
        ("snapshot", {"a": 1}, "4"),
        ("progress", {}, "4"),
        ("message", {"b": 2}, "6"),
    ]


def test_batches_hold_at_most_so_many_photos_and_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.client, "BATCH_BYTES", 100)
    sizes = [10] * 9 + [60, 60, 150, 1]
    photos: list[Path] = []
    for n, size in enumerate(sizes):
        photos.append(tmp_path / f"{n}.jpg")
        photos[-1].write_bytes(b"x" * size)
    parts = [[photo.stat().st_size for photo in batch] for batch in batches(photos)]
    assert parts == [[10] * 8, [10, 60], [60], [150], [1]]
