"""Resumable uploads: tus 1.0.0 over a real socket."""

import base64
import hashlib

import pytest

from tests.api.conftest import is_problem
from tests.api.tus_client import VERSION, begin, begun, metadata, offset, patch
from tests.photos import encoded, upload, wide_png
from tests.services import installed

DATA = encoded(1)


@pytest.fixture(scope="module")
def installation(stack, tmp_path_factory):
    """One service for all these tests: each has its own capture and leaves nothing that another could meet."""
    with installed(stack, tmp_path_factory.mktemp("uploads") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def client(installation):
    with installation.api() as found:
        yield found


def left_of(installation, url: str) -> list[str]:
    """Return the files that an upload has left on the disk."""
    return [path.name for path in installation.settings.incoming.glob(f"{url.rpartition('/')[2]}*")]


def photos_of(client, capture: str) -> list[dict]:
    return client.get(f"/v1/captures/{capture}").json()["photos"]


def test_what_is_spoken_is_said(client, installation):
    answer = client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "termination",
        "expiration",
        "checksum",
    }
    assert answer.headers["tus-max-size"] == str(installation.settings.max_video_bytes)
    assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")


def test_a_file_in_three_pieces_becomes_a_photo(client, capture, installation):
    url = begun(client, capture, DATA, "IMG_1.jpg")
    for start in (0, 1000, 2000):
        assert offset(client, url) == start
        piece = DATA[start : start + 1000] if start < 2000 else DATA[start:]
        answer = patch(client, url, start, piece)
        assert answer.status_code == 204, answer.text
        assert answer.headers["upload-offset"] == str(start + len(piece))
    assert answer.headers["upload-state"] == "done"
    assert "upload-expires" not in answer.headers
    (photo,) = photos_of(client, capture)
    assert (photo["name"], photo["state"], photo["id"]) == ("IMG_1.jpg", "accepted", answer.headers["upload-photo"])
    assert photo["sha256"] == hashlib.sha256(DATA).hexdigest()
    shown = client.get(url).json()
    assert (shown["state"], shown["offset"], shown["photo"]) == ("done", len(DATA), photo)
    assert left_of(installation, url) == []
    assert offset(client, url) == len(DATA)
    assert patch(client, url, len(DATA), b"").status_code == 204


def test_every_answer_says_the_version_also_refusals(client, capture):
    url = begun(client, capture, DATA)
    answers = [
        client.options("/v1/uploads"),
        begin(client, capture, DATA),
        client.head(url, headers=VERSION),
        client.get(url),
        patch(client, url, 5, b"x"),
        client.put("/v1/uploads"),
        client.get("/v1/uploads/nonsense"),
        client.head("/v1/uploads/nonsense", headers=VERSION),
        client.post("/v1/uploads", headers={"Origin": "http://evil.example"}),
        client.delete(url, headers=VERSION),
        client.head(url, headers=VERSION),
    ]
    assert [answer.headers.get("tus-resumable") for answer in answers] == ["1.0.0"] * len(answers)
    assert [answer.status_code for answer in answers] == [204, 201, 200, 200, 409, 405, 404, 404, 403, 204, 410]


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", ""])
def test_another_version_is_refused_and_the_right_one_named(client, capture, version):
    url = begun(client, capture, DATA)
    said = {} if version is None else {"Tus-Resumable": version}
    head = client.head(url, headers=said)
    assert (head.status_code, head.headers["tus-version"]) == (412, "1.0.0")
    body = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    is_problem(client.patch(url, content=b"x", headers={**said, **body}), 412, "request.tus_version")
    is_problem(client.post("/v1/uploads", headers={**said, "Upload-Length": "5"}), 412, "request.tus_version")
    assert offset(client, url) == 0


def test_head_says_what_was_given_and_is_never_cached(client, capture):
    url = begun(client, capture, DATA, "Küche.jpg", filetype="image/jpeg")
    answer = client.head(url, headers=VERSION)
    assert answer.headers["upload-metadata"] == metadata(filename="Küche.jpg", capture_id=capture, filetype="image/jpeg")
    assert answer.headers["upload-length"] == str(len(DATA))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["upload-expires"].endswith("GMT")


def test_an_upload_over_a_limit_is_refused_before_a_byte_is_sent(stack, tmp_path):
    with installed(stack, tmp_path / "small", max_file_bytes=10_000, max_photos=2, max_capture_bytes=15_000) as made, made.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        is_problem(begin(client, capture, 10_001), 413, "input.too_large")
        begun(client, capture, 10_000)
        is_problem(begin(client, capture, 5_001), 413, "input.capture_too_large")
        ended = begun(client, capture, 5_000)
        is_problem(begin(client, capture, 0), 413, "input.too_many_photos")
        assert client.delete(ended, headers=VERSION).status_code == 204
        begun(client, capture, 5_000)
        is_problem(upload(client, capture, 1), 413, "input.too_many_photos")


def test_no_room_on_the_disk_counts_what_others_have_reserved(stack, tmp_path):
    import shutil

    free = shutil.disk_usage(tmp_path).free
    with installed(stack, tmp_path / "full", min_free_bytes=free - (200 << 20)) as made, made.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        url = begun(client, capture, 150 << 20)
        is_problem(begin(client, capture, 100 << 20), 507, "capacity.disk")
        client.delete(url, headers=VERSION)
        begun(client, capture, 100 << 20)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "request.tus_header"),
        ({"Upload-Length": "-1"}, "request.tus_header"),
        ({"Upload-Length": "1e3"}, "request.tus_header"),
        ({"Upload-Length": "9" * 30}, "request.tus_header"),
        ({"Upload-Defer-Length": "1"}, "request.tus_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "filename !!"}, "request.tus_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "a YQ==,a YQ=="}, "request.tus_header"),
        ({"Upload-Length": "5", "Upload-Metadata": "x" * 5000}, "request.tus_header"),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(sha256="zz")}, "request.tus_header"),
    ],
)
def test_malformed_headers_are_named(client, capture, headers, code):
    is_problem(client.post("/v1/uploads", params={"capture_id": capture}, headers={**VERSION, **headers}), 400, code)


def test_the_capture_is_named_anywhere_once(client, capture):
    sized = {**VERSION, "Upload-Length": "5"}
    assert client.post("/v1/uploads", params={"capture_id": capture}, headers=sized).status_code == 201
    assert client.post(f"/v1/captures/{capture}/uploads", headers=sized).status_code == 201
    assert client.post("/v1/uploads", json={"capture_id": capture, "name": "a.jpg", "size_bytes": 5}).status_code == 201
    is_problem(client.post("/v1/uploads", headers=sized), 422, "input.which_capture")
    other = client.post("/v1/captures").json()["id"]
    two = {**sized, "Upload-Metadata": metadata(capture_id=other)}
    is_problem(client.post(f"/v1/captures/{capture}/uploads", headers=two), 422, "input.which_capture")
    is_problem(client.post("/v1/uploads", params={"capture_id": "x'--"}, headers=sized), 404, "not_found.capture")
    client.delete(f"/v1/captures/{other}")
    is_problem(begin(client, other, 5), 410, "gone.capture")


def test_creation_may_bring_the_bytes(client, capture):
    headers = {**VERSION, "Upload-Length": str(len(DATA)), "Content-Type": "application/offset+octet-stream"}
    whole = client.post(f"/v1/captures/{capture}/uploads", headers=headers, content=DATA)
    assert (whole.status_code, whole.headers["upload-offset"], whole.headers["upload-state"]) == (201, str(len(DATA)), "done")
    part = client.post(f"/v1/captures/{capture}/uploads", headers=headers, content=DATA[:100])
    assert (part.status_code, part.headers["upload-offset"], part.headers["upload-state"]) == (201, "100", "open")
    again = patch(client, part.headers["location"], 100, DATA[100:])
    assert again.status_code == 204
    assert again.headers["upload-photo"] == whole.headers["upload-photo"]
    assert len(photos_of(client, capture)) == 1
    assert client.get(part.headers["location"]).json()["is_duplicate"]


def test_the_wrong_offset_length_or_type_changes_nothing(client, capture):
    url = begun(client, capture, 100)
    assert patch(client, url, 0, b"x" * 40).status_code == 204
    for wrong in (0, 39, 41, 100):
        body = is_problem(patch(client, url, wrong, b"y" * 10), 409, "conflict.upload_offset")
        assert body["data"]["offset"] == 40
    is_problem(patch(client, url, 40, b"y" * 61), 413, "input.upload_too_long")
    is_problem(patch(client, url, 40, iter([b"y" * 50, b"y" * 50])), 413, "input.upload_too_long")
    is_problem(patch(client, url, 40, b"y", **{"Content-Type": "image/jpeg"}), 415, "request.unsupported_body")
    is_problem(patch(client, url, 40, b"y", **{"Upload-Offset": "x"}), 400, "request.tus_header")
    assert offset(client, url) == 40


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_a_piece_with_another_checksum_is_not_kept(client, capture, installation, algorithm):
    url = begun(client, capture, DATA)
    assert patch(client, url, 0, DATA[:500]).status_code == 204

    def checksum(data: bytes) -> dict[str, str]:
        return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"}

    is_problem(patch(client, url, 500, DATA[500:600] + b"!", **checksum(DATA[500:601])), 460, "request.checksum")
    assert offset(client, url) == 500
    is_problem(patch(client, url, 500, DATA[500:600], **{"Upload-Checksum": f"{algorithm} YQ=="}), 400, "request.tus_header")
    is_problem(patch(client, url, 500, DATA[500:600], **{"Upload-Checksum": "crc7 YQ=="}), 400, "request.tus_header")
    assert patch(client, url, 500, DATA[500:], **checksum(DATA[500:])).status_code == 204
    assert photos_of(client, capture)[0]["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert left_of(installation, url) == []


def test_a_file_that_is_not_what_its_client_says_is_refused(client, capture):
    url = begun(client, capture, DATA, sha256=hashlib.sha256(b"other").hexdigest())
    answer = patch(client, url, 0, DATA)
    assert (answer.status_code, answer.headers["upload-state"], answer.headers["upload-error"]) == (204, "refused", "input.other_content")
    url = begun(client, capture, DATA, sha256=hashlib.sha256(DATA).hexdigest())
    assert patch(client, url, 0, DATA).headers["upload-state"] == "done"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("notes.jpg", b"these are notes\n" * 10, "input.unsupported_type"),
        ("bomb.png", wide_png(), "input.too_many_pixels"),
        ("thumb.jpg", encoded(3, width=100, height=80), "input.too_small"),
        ("cut.jpg", DATA[:100], "input.unreadable_photo"),
        ("empty.jpg", b"", "input.empty_file"),
    ],
)
def test_a_bad_photo_is_refused_by_name_at_its_last_byte(client, capture, installation, name, data, code):
    answer = begin(client, capture, data, name)
    url = answer.headers["location"]
    if data:
        answer = patch(client, url, 0, data, Prefer="return=representation")
        assert answer.status_code == 200
        assert answer.json()["error"]["code"] == code
    assert (answer.headers["upload-state"], answer.headers["upload-error"]) == ("refused", code)
    shown = client.get(url).json()
    assert (shown["state"], shown["error"]["code"], shown["photo"]["state"]) == ("refused", code, "rejected")
    assert name in shown["error"]["detail"]
    assert [photo["name"] for photo in photos_of(client, capture)] == [name]
    assert left_of(installation, url) == []
    assert installation.stored(f"captures/{capture}") == set()


def test_an_ended_upload_is_gone_and_a_finished_one_stays(client, capture, installation):
    url = begun(client, capture, DATA)
    patch(client, url, 0, DATA[:10])
    assert client.delete(url, headers=VERSION).status_code == 204
    assert left_of(installation, url) == []
    assert client.head(url, headers=VERSION).status_code == 410
    is_problem(client.get(url), 410, "gone.upload")
    is_problem(patch(client, url, 10, b"x"), 410, "gone.upload")
    is_problem(client.delete(url, headers=VERSION), 410, "gone.upload")
    whole = begun(client, capture, DATA)
    patch(client, whole, 0, DATA)
    is_problem(client.delete(whole, headers=VERSION), 409, "conflict.upload_finished")
    assert len(photos_of(client, capture)) == 1


def test_deleting_a_capture_ends_its_uploads(client, capture):
    url = begun(client, capture, DATA)
    patch(client, url, 0, DATA[:10])
    assert client.delete(f"/v1/captures/{capture}").status_code == 204
    assert client.head(url, headers=VERSION).status_code == 410
    is_problem(patch(client, url, 10, DATA[10:]), 410, "gone.upload")


def test_post_may_stand_for_other_methods(client, capture):
    url = begun(client, capture, DATA)
    headers = {**VERSION, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream", "X-HTTP-Method-Override": "PATCH"}
    assert client.post(url, content=DATA[:10], headers=headers).status_code == 204
    assert offset(client, url) == 10
    assert client.post(url, headers={**VERSION, "X-HTTP-Method-Override": "DELETE"}).status_code == 204


def test_companions_come_resumably_too(client, capture):
    url = begun(client, capture, b'{"frames": []}', "transforms.json")
    assert patch(client, url, 0, b'{"frames": []}').headers["upload-state"] == "done"
    assert [photo["state"] for photo in photos_of(client, capture)] == ["companion"]


def test_bytes_that_come_are_counted(client, capture, db):
    from api.models import Tally

    def counted() -> float:
        with db.reading() as session:
            row = session.get(Tally, ("upload_bytes_total", ""))
            return row.value if row else 0

    before = counted()
    url = begun(client, capture, DATA)
    patch(client, url, 0, DATA[:100])
    patch(client, url, 100, DATA[100:])
    upload(client, capture, 1)
    assert counted() - before == len(DATA) + len(encoded(0))


def test_a_json_body_is_limited_also_under_an_upload_s_type(client):
    kind = {"Content-Type": "application/offset+octet-stream"}
    is_problem(client.post("/v1/captures", content=b" " * (2 << 20), headers=kind), 413, "http.request_entity_too_large")
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    is_problem(client.post("/v1/captures", content=b" " * (2 << 20), headers=kind), 413, "http.request_entity_too_large")


@pytest.mark.parametrize("stack", ["embedded"], indirect=True)
def test_parts_are_for_object_stores_only(client, capture):
    wanted = {"capture_id": capture, "name": "a.jpg", "size_bytes": 5, "mode": "parts"}
    is_problem(client.post("/v1/uploads", json=wanted), 409, "conflict.no_parts")
    url = begun(client, capture, 5)
    is_problem(client.post(f"{url}/complete", json={"parts": []}), 409, "conflict.upload_way")
