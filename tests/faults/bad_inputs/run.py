"""Sends the cases to a running service and compares what it says with what a user would expect."""

import contextlib
import json
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.faults.bad_inputs import encode as e
from tests.faults.bad_inputs.case import ACCEPTED, USED, CaptureCase, PhotoCase, RequestCase, Target

ANSWER_S = 120.0
JOB_S = 1200.0
OVER = ("succeeded", "failed", "cancelled")
# A stage is skipped where an earlier job over the same photos has left its result.
PASSED = ("done", "skipped")


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    name: str
    expected: str
    seen: str

    @property
    def is_right(self) -> bool:
        """Whether it is what a user would expect."""
        return self.seen in self.expected.split(" or ")


@dataclass
class Service:
    """A running service, seen from outside; ``statuses`` counts its answers."""

    client: httpx.Client
    data: Path
    statuses: dict[int, int] = field(default_factory=dict)

    def ask(self, method: str, address: str, **more: Any) -> httpx.Response:
        """Send a request with httpx and count its answer."""
        answer = self.client.request(method, address, **more)
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        return answer

    def send(self, raw: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes as they are; return status and problem of the answer, status 0 when the connection just ended."""
        status, body = exchange(self.client.base_url.host, self.client.base_url.port or 80, raw)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        try:
            found = json.loads(body)
        except ValueError:
            return status, {}
        return status, found if isinstance(found, dict) else {}

    def capture(self) -> str:
        """Make a capture and return its id."""
        return str(self.ask("POST", "/v1/captures").json()["id"])

    def upload(self, capture: str, files: Iterable[tuple[str, bytes]]) -> tuple[int, dict[str, Any]]:
        """Upload files under names that are sent as they are; return status and body."""
        quoted = [(name.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "surrogateescape"), data) for name, data in files]
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n'
        body = b"".join(head % each for each in quoted) + b"--b--\r\n"
        answer = self.ask(
            "POST", f"/v1/captures/{capture}/photos", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        return answer.status_code, answer.json()

    def stored(self, capture: str) -> int:
        """Return how many files lie in storage for a capture."""
        return sum(path.is_file() for path in (self.data / "storage" / "captures" / capture).rglob("*"))

    def incoming(self) -> list[str]:
        """Return the files of uploads under way."""
        return [path.name for path in (self.data / "incoming").rglob("*") if path.is_file()]


def exchange(host: str, port: int, raw: bytes) -> tuple[int, bytes]:
    """Send bytes over a new connection and return status and body of what comes back."""
    with socket.create_connection((host, port), ANSWER_S) as connection:
        received = b""
        # Refused before all was sent: the answer may still be there.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(raw)
        with contextlib.suppress(OSError):
            if b"Connection: close" not in raw:
                connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65_536):
                received += block
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


def prepare(service: Service) -> Target:
    """Make what requests speak of: captures, and a job that waits."""
    url = service.client.base_url
    capture, empty, deleted = service.capture(), service.capture(), service.capture()
    service.upload(capture, [(f"good-{n}.jpg", e.jpeg(n)) for n in range(4)])
    service.ask("DELETE", f"/v1/captures/{deleted}")
    service.ask("POST", "/v1/captures", json={"name": "y"}, headers={"Idempotency-Key": "used-before"})
    job = service.ask("POST", "/v1/jobs", json={"capture_id": capture}).json()["id"]
    return Target(f"{url.host}:{url.port}", capture, empty, deleted, job)


def run_requests(service: Service, target: Target, cases: list[RequestCase]) -> list[Outcome]:
    """Send each request; its status and code must be the expected ones, and an answer of ours a whole problem."""
    found = []
    for case in cases:
        status, body = service.send(case.raw(target))
        seen = f"{status} {body.get('code', '')}".strip() if status >= 400 else str(status)
        if case.code and status >= 400 and not {"title", "detail", "hint", "errors", "instance"} <= body.keys():
            seen += " without all of a problem"
        found.append(Outcome(case.name, f"{case.status} {case.code}".strip(), seen))
    return found


def run_door(service: Service, cases: list[PhotoCase]) -> list[Outcome]:
    """Send each photo alone, and then all with a good one: both times each must be refused by its code, and nothing of it kept."""
    capture = service.capture()
    alone = {}
    for case in cases:
        _, body = service.upload(capture, [(case.file_name, case.data)])
        alone[case.name] = body["errors"][0]["code"] if body.get("errors") else str(body.get("code", body.get("accepted")))
    kept = service.stored(capture)
    _, body = service.upload(capture, [("good.jpg", e.jpeg(7)), *((case.file_name, case.data) for case in cases)])
    together = [(photo["error"] or {"code": ACCEPTED})["code"] for photo in body["photos"]]
    found = [Outcome("a good photo among bad ones", ACCEPTED, together[0])]
    for case, code in zip(cases, together[1:], strict=True):
        found.append(Outcome(case.name, case.door, code if code == alone[case.name] else f"{alone[case.name]} alone, {code} with others"))
    return [*found, Outcome("files kept of refused ones", "0, then 1", f"{kept}, then {service.stored(capture)}")]


def send_odd(service: Service, capture: str, cases: list[PhotoCase]) -> tuple[list[Outcome], dict[str, PhotoCase]]:
    """Send photos that must come in, one by one; return those that did not, and the others by the name they are kept under."""
    wrong, kept = [], {}
    for case in cases:
        status, body = service.upload(capture, [(case.file_name, case.data)])
        photo = body["photos"][0] if status == 201 else None
        if photo is None or photo["state"] != ACCEPTED or case.stored not in ("", photo["name"]):
            seen = f"{status} {photo['name'] if photo else body.get('errors') or body.get('code')}"
            wrong.append(Outcome(case.name, f"201 {case.stored or ACCEPTED}", seen))
        else:
            kept[photo["name"]] = case
    return wrong, kept


def run_odd(service: Service, cases: list[PhotoCase]) -> list[Outcome]:
    """Send photos that must come in, run the first stage over all of them, and compare what it made of each."""
    capture = service.capture()
    wrong, kept = send_odd(service, capture, cases)
    job = start(service, capture, {})
    after_ingest(service, job)
    records = records_of(service, job)
    service.ask("POST", f"/v1/jobs/{job}/cancel")
    return wrong + [Outcome(case.name, " or ".join(case.ingest), records.get(name, "not named")) for name, case in kept.items()]


def start(service: Service, capture: str, options: dict[str, object]) -> str:
    """Start a job and return its id, or the code it is refused with."""
    body = service.ask("POST", "/v1/jobs", json={"capture_id": capture, "options": options}).json()
    return str(body.get("id") or body["code"])


def after_ingest(service: Service, job: str) -> dict[str, Any]:
    """Wait until a job's first stage is done or the job is over; return the job."""
    deadline = time.monotonic() + JOB_S
    while True:
        body: dict[str, Any] = service.ask("GET", f"/v1/jobs/{job}").json()
        if body["state"] in OVER or body["stages"][0]["state"] in PASSED or time.monotonic() > deadline:
            return body
        time.sleep(0.3)


def records_of(service: Service, job: str) -> dict[str, str]:
    """Return what the first stage made of each photo: used, or the code it is left out with."""
    path = service.data / "work" / job / "images.json"
    if not path.exists():
        return {}
    return {record["source_name"]: USED if record["accepted"] else record["reason"] for record in json.loads(path.read_text())}


def run_captures(service: Service, cases: list[CaptureCase]) -> list[Outcome]:
    """Send each set of files, start a job over each, and compare how it goes; two by two, as there are two workers."""
    return [outcome for at in range(0, len(cases), 4) for outcome in run_together(service, cases[at : at + 4])]


def run_together(service: Service, cases: list[CaptureCase]) -> list[Outcome]:
    """Send some sets of files and wait for their jobs."""
    begun = []
    for case in cases:
        capture = service.capture()
        _, body = service.upload(capture, case.files)
        refused = {photo["name"]: photo["error"]["code"] for photo in body["photos"] if photo["error"]}
        begun.append((case, refused, start(service, capture, case.options)))
    found = []
    for case, refused, job in begun:
        body = after_ingest(service, job)
        left_out = {name: code for name, code in records_of(service, job).items() if code != USED}
        if body["state"] not in OVER:
            service.ask("POST", f"/v1/jobs/{job}/cancel")
        # Photos of noise come no further than this: what later stages say of them is no part of the case.
        error = "" if body["stages"][0]["state"] in PASSED else (body["error"] or {"code": ""})["code"]
        seen = {"error": error, "refused": refused, "left_out": left_out}
        expected = {name: value for name, value in asdict(case).items() if name in seen}
        found.append(Outcome(case.name, json.dumps(expected, sort_keys=True), json.dumps(seen, sort_keys=True)))
    return found
