"""tus spoken by hand, so that tests can say it wrongly too."""

import base64

import httpx

from api import tus

VERSION = {"Tus-Resumable": tus.VERSION}


def metadata(**values: str) -> str:
    """Return an Upload-Metadata header."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def begin(client: httpx.Client, capture: str, data: bytes | int, name: str = "a.jpg", **more: str) -> httpx.Response:
    """Begin an upload of so many bytes."""
    length = data if isinstance(data, int) else len(data)
    headers = {**VERSION, "Upload-Length": str(length), "Upload-Metadata": metadata(filename=name, capture_id=capture, **more)}
    return client.post("/v1/uploads", headers=headers)


def begun(client: httpx.Client, capture: str, data: bytes | int, name: str = "a.jpg", **more: str) -> str:
    """Begin an upload that must be taken; return its address."""
    answer = begin(client, capture, data, name, **more)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(client: httpx.Client, url: str, offset: int, body, **headers: str) -> httpx.Response:
    """Send bytes."""
    all_headers = {**VERSION, "Upload-Offset": str(offset), "Content-Type": tus.BODY_TYPE, **headers}
    return client.patch(url, content=body, headers=all_headers)


def offset(client: httpx.Client, url: str) -> int:
    """Ask how much is safe."""
    answer = client.head(url, headers=VERSION)
    assert answer.status_code == 200, answer.headers
    return int(answer.headers["upload-offset"])
