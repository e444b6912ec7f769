"""Requests sent byte for byte: bodies that are not what they say, values of every wrong kind, and headers that should not be."""

import json
from collections.abc import Callable

from tests.faults.bad_inputs import encode as e
from tests.faults.bad_inputs.case import RequestCase, Target

INVALID, OPTION, JSON = "input.invalid_request", "input.invalid_option", "request.malformed_json"
FORM, BODY = "request.malformed_form", "request.unsupported_body"
NO_CAPTURE, NO_JOB = "not_found.capture", "not_found.job"
UNKNOWN = "0193a0f0-0000-7000-8000-000000000000"
Make = Callable[[Target], bytes]


def cases() -> list[RequestCase]:
    """Return the cases."""
    return [*forms(), *captures(), *jobs(), *options(), *places(), *queries(), *headers()]


def request(target: Target, line: str, body: bytes = b"", *more: str) -> bytes:
    """Return a request as bytes; ``line`` is method and address."""
    fields = [f"Host: {target.host}", "Connection: close", *more]
    if body and not any(each.lower().startswith(("content-length:", "transfer-encoding:")) for each in more):
        fields.append(f"Content-Length: {len(body)}")
    return f"{line} HTTP/1.1\r\n".encode() + "\r\n".join(fields).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def part(name: str, data: bytes, file_name: str | None = None) -> bytes:
    """Return a part of a form with the boundary b."""
    quoted = "" if file_name is None else '; filename="' + file_name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{quoted}\r\n\r\n'.encode("utf-8", "surrogateescape") + data + b"\r\n"


END = b"--b--\r\n"
FORM_TYPE = "Content-Type: multipart/form-data; boundary=b"


def upload(body: bytes, kind: str = FORM_TYPE, *more: str) -> Make:
    """Return a request that sends photos."""
    return lambda target: request(target, f"POST /v1/captures/{target.capture}/photos", body, *([kind] if kind else []), *more)


def forms() -> list[RequestCase]:
    """Uploads whose body is no form, or an endless one."""
    photo = part("files", e.jpeg(1), "a.jpg")
    bare = b'--b\r\nContent-Disposition: form-data; filename="a.jpg"\r\n\r\n' + e.jpeg(1) + b"\r\n"
    return [
        RequestCase("form without a boundary", upload(photo + END, "Content-Type: multipart/form-data"), 400, FORM),
        RequestCase("form with an empty boundary", upload(photo + END, "Content-Type: multipart/form-data; boundary="), 400, FORM),
        RequestCase("form with another boundary", upload(photo + END, "Content-Type: multipart/form-data; boundary=c"), 400, FORM),
        RequestCase("form with a boundary of 400", upload(photo, "Content-Type: multipart/form-data; boundary=" + "b" * 400), 400, FORM),
        RequestCase("form without a body", upload(b"", FORM_TYPE, "Content-Length: 0"), 400, FORM),
        RequestCase("form cut in a photo", upload(photo[:500]), 400, FORM),
        RequestCase("form cut in a header", upload(photo[:30]), 400, FORM),
        RequestCase("form without its end", upload(photo), 400, FORM),
        RequestCase("form of its end alone", upload(END), 422, "input.no_files"),
        RequestCase("form of text", upload(b"hello"), 400, FORM),
        RequestCase(
            "form of 10,000 fields", upload(b"".join(part(f"f{n}", b"x") for n in range(10_000)) + END), 413, "input.too_many_fields"
        ),
        RequestCase(
            "form of 10,000 empty fields", upload(b"".join(part(f"f{n}", b"") for n in range(10_000)) + END), 413, "input.too_many_fields"
        ),
        RequestCase(
            "form of 10,000 empty files",
            upload(b"".join(part("files", b"", f"{n}.jpg") for n in range(10_000)) + END),
            413,
            "input.too_many_photos",
        ),
        RequestCase(
            "form of 10,000 nameless files",
            upload(b"".join(part("files", b"", "") for n in range(10_000)) + END),
            413,
            "input.too_many_photos",
        ),
        RequestCase("field of 300 kB", upload(part("note", b"x" * 300_000) + END), 413, "input.field_too_large"),
        RequestCase("header of 100 kB in a part", upload(part("files", b"x", "x" * 100_000) + END), 400, FORM),
        RequestCase("name of 5,000 characters", upload(part("files", e.jpeg(1), "x" * 5000) + END), 400, FORM),
        RequestCase("50 headers in a part", upload(b"--b\r\n" + b"X-A: b\r\n" * 50 + b"\r\nx\r\n" + END), 400, FORM),
        RequestCase("part without headers", upload(b"--b\r\n\r\nhello\r\n" + END), 422, "input.no_files"),
        RequestCase("part without a name", upload(bare + END), 201),
        RequestCase("photo in a field without a file name", upload(part("files", e.jpeg(1)) + END), 422, "input.no_files"),
        RequestCase("form in a form", upload(part("files", photo + END, "a.jpg") + END), 422, "input.no_usable_photos"),
        RequestCase(
            "line break in a file name",
            upload(part("files", b"x", "a\r\nContent-Type: text/html\r\n\r\nb.jpg") + END),
            422,
            "input.no_usable_photos",
        ),
        RequestCase("json for a form", upload(b"{}", "Content-Type: application/json"), 415, BODY),
        RequestCase("photo for a form", upload(e.jpeg(1), "Content-Type: image/jpeg"), 415, BODY),
        RequestCase("url-encoded form", upload(b"files=a", "Content-Type: application/x-www-form-urlencoded"), 415, BODY),
        RequestCase("mixed form", upload(photo + END, "Content-Type: multipart/mixed; boundary=b"), 415, BODY),
        RequestCase("no content type", upload(photo + END, ""), 415, BODY),
        RequestCase("packed form", upload(b"\x1f\x8b\x08\0" + bytes(50), FORM_TYPE, "Content-Encoding: gzip"), 400, FORM),
        RequestCase(
            "photos for no capture", lambda t: request(t, f"POST /v1/captures/{UNKNOWN}/photos", photo + END, FORM_TYPE), 404, NO_CAPTURE
        ),
        RequestCase(
            "photos for a deleted capture",
            lambda t: request(t, f"POST /v1/captures/{t.deleted}/photos", photo + END, FORM_TYPE),
            410,
            "gone.capture",
        ),
        RequestCase("job from a form without photos", start_form(part("preset", b"draft")), 422, "input.no_files"),
        RequestCase("job from a form with an unknown field", start_form(photo, part("bananas", b"1")), 422, "input.unknown_field"),
        RequestCase(
            "job from a form with options that are no json", start_form(photo, part("options", b"{steps")), 422, "input.malformed_field"
        ),
        RequestCase("job from a form with options that are a list", start_form(photo, part("options", b"[1]")), 422, OPTION),
        RequestCase("job from a form with options of nan", start_form(photo, part("options", b'{"seed": NaN}')), 422, OPTION),
        RequestCase("job from a form with an unknown preset", start_form(photo, part("preset", b"ultra")), 422, "input.unknown_preset"),
        RequestCase(
            "job from a form with a name of control characters", start_form(photo, part("name", b"a\x07b")), 422, "input.invalid_name"
        ),
        RequestCase("job from a form with one photo", start_form(photo), 422, "input.too_few_photos"),
        RequestCase("job from a form of texts", start_form(part("files", b"text", "a.jpg")), 422, "input.no_usable_photos"),
    ]


def start_form(*parts: bytes) -> Make:
    """Return a request that starts a job with a form."""
    return lambda target: request(target, "POST /v1/jobs", b"".join(parts) + END, FORM_TYPE)


def captures() -> list[RequestCase]:
    """Bodies that should be JSON, or JSON that should be something else; on the simplest route that takes one."""
    bodies: dict[str, tuple[bytes, int, str]] = {
        "no json": (b"{name: x}", 422, INVALID),
        "cut json": (b'{"name": "x', 422, INVALID),
        "two values": (b"{} {}", 422, INVALID),
        "a list": (b"[]", 422, INVALID),
        "a text": (b'"x"', 422, INVALID),
        "a number": (b"7", 422, INVALID),
        "an unknown member": (b'{"name": "x", "admin": true}', 422, INVALID),
        "__proto__": (b'{"__proto__": {"a": 1}}', 422, INVALID),
        "a name that is a number": (b'{"name": 7}', 422, INVALID),
        "a name of null": (b'{"name": null}', 422, INVALID),
        "a name of 201 characters": (json.dumps({"name": "x" * 201}).encode(), 422, INVALID),
        "a name with nul": (b'{"name": "a\\u0000b"}', 422, INVALID),
        "a name with a line break": (b'{"name": "a\\nb"}', 422, INVALID),
        "a name of half a surrogate": (b'{"name": "\\ud800"}', 422, INVALID),
        "wrong utf-8": (b'{"name": "\xff\xfe"}', 400, "http.bad_request"),
        "utf-16": ('{"name": "x"}'.encode("utf-16"), 201, ""),
        "100,000 brackets": (b"[" * 100_000, 400, "http.bad_request"),
        "100,000 objects": (b'{"name":' * 100_000, 400, "http.bad_request"),
        "a number of 100,000 digits": (b'{"name": ' + b"9" * 100_000 + b"}", 400, "http.bad_request"),
        "one key twice, the last counts": (b'{"name": 7, "name": "x"}', 201, ""),
        "2 MB": (b'{"name": "' + b"x" * (2 << 20) + b'"}', 413, "http.request_entity_too_large"),
    }
    found = [RequestCase(f"capture from {name}", create(body), status, code) for name, (body, status, code) in bodies.items()]
    return [
        *found,
        RequestCase("capture from text", create(b"hello", "text/plain"), 422, INVALID),
        RequestCase("capture from xml", create(b"<name>x</name>", "application/xml"), 422, INVALID),
        RequestCase("capture from nothing", lambda t: request(t, "POST /v1/captures", b"", "Content-Length: 0"), 201),
    ]


def create(body: bytes, kind: str = "application/json") -> Make:
    """Return a request that makes a capture."""
    return lambda target: request(target, "POST /v1/captures", body, f"Content-Type: {kind}")


def start(kind: str = "application/json", **members: object) -> Make:
    """Return a request that starts a job over the capture, unless another is named."""
    return lambda target: request(
        target, "POST /v1/jobs", json.dumps({"capture_id": target.capture, **members}).encode(), f"Content-Type: {kind}"
    )


def jobs() -> list[RequestCase]:
    """Jobs over nothing, and over things that are none."""
    text = lambda body: lambda t: request(t, "POST /v1/jobs", body, "Content-Type: application/json")  # noqa: E731
    post = lambda what, body=b"": lambda t: request(t, f"POST /v1/jobs/{t.job}/{what}", body, "Content-Type: application/json")  # noqa: E731
    return [
        RequestCase("job from no json", text(b"{capture_id"), 400, JSON),
        RequestCase("job from nothing", text(b""), 400, JSON),
        RequestCase("job from a list", text(b"[]"), 422, INVALID),
        RequestCase("job from 100,000 brackets", text(b"[" * 100_000), 400, JSON),
        RequestCase("job from wrong utf-8", text(b'{"capture_id": "\xff"}'), 400, JSON),
        RequestCase("job from text", start("text/plain"), 415, BODY),
        RequestCase("job from yaml", start("application/yaml"), 415, BODY),
        RequestCase("job without a content type", lambda t: request(t, "POST /v1/jobs", b"{}"), 415, BODY),
        RequestCase("job over nothing", text(b"{}"), 422, INVALID),
        RequestCase("job over an unknown capture", start(capture_id=UNKNOWN), 404, NO_CAPTURE),
        RequestCase("job over a deleted capture", lambda t: start(capture_id=t.deleted)(t), 410, "gone.capture"),
        RequestCase("job over an empty capture", lambda t: start(capture_id=t.empty)(t), 422, "input.too_few_photos"),
        RequestCase("job over a number", start(capture_id=7), 422, INVALID),
        RequestCase("job over null", start(capture_id=None), 422, INVALID),
        RequestCase("job over sql", start(capture_id="' OR 1=1 --"), 422, INVALID),
        RequestCase("job over a path", start(capture_id="../../etc"), 422, INVALID),
        RequestCase("job over 10,000 characters", start(capture_id="a" * 10_000), 422, INVALID),
        RequestCase("job with an unknown member", start(priority_please=1), 422, INVALID),
        RequestCase("job with an unknown preset", start(preset="ultra"), 422, "input.unknown_preset"),
        RequestCase("job with a preset that is a number", start(preset=3), 422, INVALID),
        RequestCase("retry from an unknown stage", post("retry", b'{"from_stage": "bake"}'), 409, "conflict.job_active"),
        RequestCase("retry from no json", post("retry", b"{from"), 422, INVALID),
        RequestCase("cancel of an unknown job", lambda t: request(t, f"POST /v1/jobs/{UNKNOWN}/cancel"), 404, NO_JOB),
        RequestCase("asset of a job that waits", lambda t: request(t, f"GET /v1/jobs/{t.job}/assets/scene.ply"), 409, "conflict.not_ready"),
        RequestCase(
            "deleting a capture that a job needs", lambda t: request(t, f"DELETE /v1/captures/{t.capture}"), 409, "conflict.capture_in_use"
        ),
    ]


def options() -> list[RequestCase]:
    """Options of every wrong kind; a bad one stops the job before anything runs."""
    nested: object = 1
    for _ in range(200):
        nested = {"train": nested}
    bad: dict[str, tuple[object, str]] = {
        "that are a list": ([1], INVALID),
        "that are a text": ("fast", INVALID),
        "of an unknown group": ({"trains": {}}, "input.unknown_option"),
        "of an unknown name": ({"train": {"stepz": 5}}, "input.unknown_option"),
        "with an empty name": ({"": 1}, "input.unknown_option"),
        "with a name of 10,000 characters": ({"x" * 10_000: 1}, "input.unknown_option"),
        "with a group that is a number": ({"train": 5}, OPTION),
        "with a group that is null": ({"train": None}, OPTION),
        "with steps 0": ({"train": {"steps": 0}}, OPTION),
        "with steps -1": ({"train": {"steps": -1}}, OPTION),
        "with steps 10^30": ({"train": {"steps": 10**30}}, OPTION),
        "with steps 10^400, too large for a float": ({"train": {"steps": 10**400}}, OPTION),
        "with a time limit of 10^400": ({"poses": {"time_limit_s": 10**400}}, OPTION),
        "with steps 1.5": ({"train": {"steps": 1.5}}, OPTION),
        "with steps as text": ({"train": {"steps": "500"}}, OPTION),
        "with steps true": ({"train": {"steps": True}}, OPTION),
        "with steps null": ({"train": {"steps": None}}, OPTION),
        "with steps as a list": ({"train": {"steps": [500]}}, OPTION),
        "with a seed of 2^64": ({"seed": 2**64}, OPTION),
        "with a negative seed": ({"seed": -1}, OPTION),
        "with nan": ({"poses": {"min_registered": float("nan")}}, OPTION),
        "with infinity": ({"ingest": {"max_megapixels": float("inf")}}, OPTION),
        "with no format": ({"compress": {"formats": []}}, OPTION),
        "with an unknown format": ({"compress": {"formats": ["exe"]}}, OPTION),
        "with formats of numbers": ({"compress": {"formats": [1]}}, OPTION),
        "with formats as text": ({"compress": {"formats": "ply"}}, OPTION),
        "with a path for a choice": ({"poses": {"source": "../../etc/passwd"}}, OPTION),
        "in each other 200 times": ({"train": nested}, "input.unknown_option"),
        "with a preset in them": ({"preset": "high"}, "input.unknown_option"),
    }
    return [RequestCase(f"options {name}", start(options=value), 422, code) for name, (value, code) in bad.items()]


def get(address: str, *more: str) -> Make:
    """Return a request for an address; ``{job}`` and ``{capture}`` are filled in."""
    return lambda target: request(
        target, "GET " + address.format(job=target.job, capture=target.capture, deleted=target.deleted), b"", *more
    )


def places() -> list[RequestCase]:
    """Addresses that lead nowhere."""
    return [
        RequestCase("path that climbs", get("/v1/captures/../../../etc/passwd"), 404, "http.not_found"),
        RequestCase("encoded path that climbs", get("/v1/captures/%2e%2e%2f%2e%2e%2fetc"), 404, "http.not_found"),
        RequestCase("encoded nul", get("/v1/captures/%00"), 404, NO_CAPTURE),
        RequestCase("wrong utf-8 in a path", get("/v1/captures/%ff%fe"), 404, NO_CAPTURE),
        RequestCase("id of 10,000 characters", get("/v1/jobs/" + "a" * 10_000), 404, NO_JOB),
        RequestCase("id in capitals", get("/v1/jobs/" + UNKNOWN.upper()), 404, NO_JOB),
        RequestCase("id of sql", get("/v1/jobs/1%27%20OR%20%271%27=%271"), 404, NO_JOB),
        RequestCase("unknown job", get(f"/v1/jobs/{UNKNOWN}"), 404, NO_JOB),
        RequestCase("deleted capture", get("/v1/captures/{deleted}"), 410, "gone.capture"),
        RequestCase("asset that climbs", get("/v1/jobs/{job}/assets/..%2f..%2fsplatworks.db"), 404, "http.not_found"),
        RequestCase("page that climbs", get("/static/..%2f..%2fapi%2fapp.py"), 404, "not_found.page"),
        RequestCase("page with nul", get("/static/%00"), 404, "not_found.page"),
        RequestCase("unknown share", get("/s/" + "x" * 43), 404, "not_found.share"),
        RequestCase("wrong method", lambda t: request(t, "PUT /v1/jobs"), 405, "http.method_not_allowed"),
        RequestCase("unknown method", lambda t: request(t, "BREW /v1/jobs"), 405, "http.method_not_allowed"),
        RequestCase("trace", lambda t: request(t, "TRACE /v1/jobs"), 405, "http.method_not_allowed"),
        RequestCase("slash behind", get("/v1/jobs/"), 404, "http.not_found"),
    ]


def queries() -> list[RequestCase]:
    """Query parameters of wrong kinds."""
    wrong = ("limit=0", "limit=-1", "limit=201", "limit=abc", "limit=1e2", "limit=99999999999999999999", "limit=", "limit=1&limit=x")
    others = ("cursor=x", "cursor=%00", "cursor=" + "a" * 5000, "state=dead", "state=", "capture_id=../..", "capture_id=%00")
    found = [RequestCase(f"jobs?{query[:40]}", get(f"/v1/jobs?{query}"), 422, INVALID) for query in (*wrong, *others)]
    events = ("after=-1", "after=x", f"after={2**31}")
    return found + [RequestCase(f"events?{query}", get(f"/v1/jobs/{{job}}/events?{query}"), 422, INVALID) for query in events]


def chunked(body: bytes, *more: str) -> Make:
    """Return a request whose body comes in chunks."""
    kind = "Content-Type: application/json"
    return lambda target: request(target, "POST /v1/captures", body, kind, "Transfer-Encoding: chunked", *more)


def headers() -> list[RequestCase]:
    """Headers that are wrong, foreign or hostile, and requests that are no HTTP."""
    name = b'{"name": "x"}'
    keyed = lambda key: lambda t: request(t, "POST /v1/captures", name, "Content-Type: application/json", f"Idempotency-Key: {key}")  # noqa: E731
    raw = lambda data: lambda _target: data  # noqa: E731
    sized = lambda *fields: lambda t: request(t, "POST /v1/captures", name, "Content-Type: application/json", *fields)  # noqa: E731
    return [
        RequestCase("idempotency key of nothing", keyed(""), 422, INVALID),
        RequestCase("idempotency key of a blank in a word", keyed("a b"), 422, INVALID),
        RequestCase("idempotency key of 256 characters", keyed("k" * 256), 422, INVALID),
        RequestCase("idempotency key beyond ascii", keyed("schlüssel"), 422, INVALID),
        RequestCase("idempotency key used before", keyed("used-before"), 422, "input.idempotency_key_reused"),
        RequestCase("wait for some seconds", get("/v1/jobs/{job}", "Prefer: wait=some"), 200),
        RequestCase("wait for -1 seconds", get("/v1/jobs/{job}", "Prefer: wait=-1"), 200),
        RequestCase("entity tag of 10,000 characters", get("/v1/jobs/{job}", "If-None-Match: " + '"x",' * 2500), 200),
        RequestCase("range behind the end", get("/v1/jobs/{job}/logs", "Range: bytes=99999-"), 416, "request.range"),
        RequestCase("range of 10^30", get("/v1/jobs/{job}/logs", "Range: bytes=" + "9" * 30 + "-"), 200),
        RequestCase("range backwards", get("/v1/jobs/{job}/logs", "Range: bytes=9-1"), 200),
        RequestCase("range of words", get("/v1/jobs/{job}/logs", "Range: bytes=a-b"), 200),
        RequestCase("a thousand ranges", get("/v1/jobs/{job}/logs", "Range: bytes=" + ",".join(["0-0"] * 1000)), 200),
        RequestCase("last event that is a word", get("/v1/jobs/{job}/events", "Last-Event-ID: x", "Accept: application/json"), 200),
        RequestCase(
            "foreign host", lambda t: request(t, "GET /v1/jobs").replace(t.host.encode(), b"evil.example"), 403, "request.foreign_host"
        ),
        RequestCase(
            "host that is none", lambda t: request(t, "GET /v1/jobs").replace(t.host.encode(), b"]:["), 403, "request.foreign_host"
        ),
        RequestCase("foreign page", sized("Origin: http://evil.example"), 403, "request.foreign_origin"),
        RequestCase("page of null", sized("Origin: null"), 403, "request.foreign_origin"),
        RequestCase("length that is negative", sized("Content-Length: -5"), 400),
        RequestCase("length that is a word", sized("Content-Length: many"), 400),
        RequestCase("two lengths", sized("Content-Length: 13", "Content-Length: 5"), 400),
        RequestCase("length and chunks, which count", chunked(b"d\r\n" + name + b"\r\n0\r\n\r\n", "Content-Length: 5"), 201),
        RequestCase("chunks of no size", chunked(b"zz\r\n" + name + b"\r\n"), 400),
        RequestCase("chunks of 2^64", chunked(b"f" * 30 + b"\r\n" + name), 400),
        RequestCase("unknown transfer encoding", sized("Transfer-Encoding: gzip"), 400),
        RequestCase("header of 2 MB", get("/healthz", "X-Large: " + "x" * (2 << 20)), 400),
        RequestCase("address of 2 MB", get("/v1/" + "x" * (2 << 20)), 400),
        RequestCase("200,000 headers", get("/healthz", *(f"X-{n}: x" for n in range(200_000))), 400),
        RequestCase("header without a name", get("/healthz", ": x"), 400),
        RequestCase("header with nul", get("/healthz", "X-A: a\0b"), 400),
        RequestCase("header over two lines", get("/healthz", "X-A: a\r\n b"), 200),
        RequestCase("no host", raw(b"GET /healthz HTTP/1.1\r\n\r\n"), 400),
        RequestCase("two hosts", get("/healthz", "Host: evil.example"), 400),
        RequestCase("http 0.9", raw(b"GET /healthz\r\n\r\n"), 400),
        RequestCase("http 9.9", raw(b"GET /healthz HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n"), 200),
        RequestCase("tls", raw(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n"), 400),
        RequestCase("noise", raw(bytes(range(256)) * 4 + b"\r\n\r\n"), 400),
    ]
