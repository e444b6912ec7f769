"""What Schemathesis checks beside its own list; it loads this module by name (``hooks`` in the configuration that fuzz_api writes)."""

import json

import schemathesis

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "hint", "retryable", "errors"}


@schemathesis.check
def every_refusal_is_a_problem(ctx, response, case):  # noqa: ARG001 (the signature is Schemathesis's)
    """An answer of 400 and above is a whole RFC 9457 problem that names its request."""
    if response.status_code < 400 or case.method.upper() == "HEAD":
        return
    assert response.headers["content-type"] == ["application/problem+json"], response.headers["content-type"]
    body = response.json()
    assert body.keys() >= MEMBERS, MEMBERS - body.keys()
    assert body["status"] == response.status_code
    assert body["code"]
    assert body["detail"]


@schemathesis.check
def a_valid_request_is_understood(ctx, response, case):  # noqa: ARG001
    """A request as the document says may be refused for what it asks for, never for how it is written."""
    if case.meta is not None and case.meta.generation.mode.is_positive and response.status_code in (400, 422):
        assert response.json()["code"] != "input.invalid_request", response.json()["detail"]


@schemathesis.serializer("application/offset+octet-stream")
def bytes_as_they_are(ctx, value):  # noqa: ARG001
    """Send what tus appends as it is."""
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value, default=str).encode()
