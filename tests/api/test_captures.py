"""Captures and uploads over HTTP."""

import hashlib

import pytest

from tests.api.conftest import is_problem
from tests.photos import encoded, form, upload, wide_png
from tests.services import installed


def send(client, capture: str, *files: tuple[str, bytes]):
    return client.post(f"/v1/captures/{capture}/photos", files=form(*files))


def test_a_capture_lists_its_photos_with_size_and_hash(client, capture):
    data = encoded(1, "PNG")
    assert send(client, capture, ("a.png", data)).status_code == 201
    (photo,) = client.get(f"/v1/captures/{capture}").json()["photos"]
    assert (photo["format"], photo["width"], photo["height"]) == ("png", 400, 300)
    assert photo["sha256"] == hashlib.sha256(data).hexdigest()
    assert photo["size_bytes"] == len(data)


def test_bad_files_are_named_with_a_code_and_the_others_are_kept(client, capture, installation):
    truncated = encoded(2)[:100]
    answer = send(
        client,
        capture,
        ("good.jpg", encoded(1)),
        ("notes.jpg", b"these are notes\n" * 10),
        ("bomb.png", wide_png()),
        ("thumb.jpg", encoded(3, width=100, height=80)),
        ("cut.jpg", truncated),
        ("empty.jpg", b""),
        ("strip.png", wide_png(60_000, 10)),
    )
    assert answer.status_code == 201
    body = answer.json()
    assert (body["accepted"], body["rejected"]) == (1, 6)
    codes = {photo["name"]: photo["error"]["code"] for photo in body["photos"] if photo["error"]}
    assert codes == {
        "notes.jpg": "input.unsupported_type",
        "bomb.png": "input.too_many_pixels",
        "thumb.jpg": "input.too_small",
        "cut.jpg": "input.unreadable_photo",
        "empty.jpg": "input.empty_file",
        "strip.png": "input.too_small",
    }
    assert all(photo["name"] in photo["error"]["detail"] for photo in body["photos"] if photo["error"])
    assert list(installation.settings.incoming.iterdir()) == []


def test_an_upload_of_nothing_but_bad_files_is_refused_and_names_each(client, capture):
    answer = send(client, capture, ("a.jpg", b"text"), ("b.jpg", b"\xff\xd8\xff"))
    body = is_problem(answer, 422, "input.no_usable_photos")
    assert [error["name"] for error in body["errors"]] == ["a.jpg", "b.jpg"]
    assert client.get(f"/v1/captures/{capture}").json()["photos"] == []


def test_an_upload_without_files_is_refused(client, capture):
    answer = client.post(f"/v1/captures/{capture}/photos", files={"note": (None, b"hello")})
    is_problem(answer, 422, "input.no_files")


def test_the_same_photo_twice_is_one_photo(client, capture):
    first = send(client, capture, ("a.jpg", encoded(1)), ("b.jpg", encoded(1))).json()
    assert (first["accepted"], first["duplicates"]) == (1, 1)
    again = send(client, capture, ("c.jpg", encoded(1))).json()
    assert again["photos"][0]["is_duplicate"]
    assert again["photos"][0]["id"] == first["photos"][0]["id"]
    assert client.get(f"/v1/captures/{capture}").json()["accepted"] == 1


def test_different_photos_of_one_name_are_both_kept(client, capture):
    body = send(client, capture, ("IMG.jpg", encoded(1)), ("img.JPG", encoded(2)), ("IMG.jpg", encoded(3))).json()
    assert [photo["name"] for photo in body["photos"]] == ["IMG.jpg", "img-2.JPG", "IMG-3.jpg"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd.jpg"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("Küche – 写真.jpg", "Küche – 写真.jpg"),
        ("...", "photo.jpg"),
        ("a%2F..%2Fb.jpg", "a_2F.._2Fb.jpg"),
        ("x" * 300 + ".jpg", "x" * 116 + ".jpg"),
        ("-rf.jpg", "-rf.jpg"),
        (".hidden.jpg", "hidden.jpg"),
        ("a\u202egpj.exe.jpg", "agpj.exe.jpg"),
    ],
)
def test_hostile_names_become_plain_ones(client, capture, sent, kept):
    body = send(client, capture, (sent, encoded(1))).json()
    assert [photo["name"] for photo in body["photos"]] == [kept]


def test_a_file_over_the_limit_is_rejected_and_the_others_are_kept(stack, tmp_path):
    with installed(stack, tmp_path / "small", max_file_bytes=50_000) as installation, installation.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        body = send(client, capture, ("big.png", encoded(1) + b"\0" * 100_000), ("good.jpg", encoded(2))).json()
        assert [(photo["state"], photo["error"] and photo["error"]["code"]) for photo in body["photos"]] == [
            ("rejected", "input.too_large"),
            ("accepted", None),
        ]


def test_a_request_over_the_limit_is_refused_with_and_without_its_length(stack, tmp_path):
    limits = {"max_request_bytes": 100_000, "max_json_bytes": 1000}
    with installed(stack, tmp_path / "small", **limits) as installation, installation.api() as client:
        capture = client.post("/v1/captures").json()["id"]
        path = f"/v1/captures/{capture}/photos"
        is_problem(client.post(path, files=form(("a.jpg", b"x" * 200_000))), 413, "input.request_too_large")
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'

        def body():
            yield head
            for _ in range(20):
                yield b"x" * 10_000

        answer = client.post(path, content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
        is_problem(answer, 413, "input.request_too_large")
        is_problem(client.post("/v1/captures", json={"name": "x" * 2000}), 413, "http.request_entity_too_large")
        assert list(installation.settings.incoming.iterdir()) == []


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("multipart/form-data", b"x", 400, "request.malformed_form"),
        ("multipart/form-data; boundary=b", b"nonsense", 400, "request.malformed_form"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\ncut',
            400,
            "request.malformed_form",
        ),
        ("multipart/form-data; boundary=" + "b" * 400, b"x", 400, "request.malformed_form"),
        ("application/json", b"{}", 415, "request.unsupported_body"),
        ("image/jpeg", b"\xff\xd8", 415, "request.unsupported_body"),
    ],
)
def test_a_malformed_upload_is_a_problem_and_leaves_nothing(client, capture, installation, content_type, body, status, code):
    answer = client.post(f"/v1/captures/{capture}/photos", content=body, headers={"Content-Type": content_type})
    is_problem(answer, status, code)
    assert list(installation.settings.incoming.iterdir()) == []


def test_an_unknown_or_deleted_capture_is_told_apart(client, capture):
    missing = "01890000-0000-7000-8000-000000000000"
    is_problem(client.get(f"/v1/captures/{missing}"), 404, "not_found.capture")
    is_problem(client.get("/v1/captures/nonsense%00"), 404, "not_found.capture")
    is_problem(send(client, missing, ("a.jpg", encoded(1))), 404, "not_found.capture")
    assert client.delete(f"/v1/captures/{capture}").status_code == 204
    is_problem(client.get(f"/v1/captures/{capture}"), 410, "gone.capture")
    is_problem(client.delete(f"/v1/captures/{capture}"), 410, "gone.capture")


def test_a_capture_in_use_cannot_be_deleted(client, capture):
    upload(client, capture, 3)
    job = client.post("/v1/jobs", json={"capture_id": capture}).json()
    body = is_problem(client.delete(f"/v1/captures/{capture}"), 409, "conflict.capture_in_use")
    assert job["id"] in body["detail"]
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete(f"/v1/captures/{capture}").status_code == 204


def test_captures_come_in_pages_newest_first(client):
    made = [client.post("/v1/captures", json={"name": f"n{n}"}).json()["id"] for n in range(5)]
    seen, cursor = [], None
    while True:
        page = client.get("/v1/captures", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("name", ["a\u0000b", "line\nbreak", "x" * 201, 7, None])
def test_an_invalid_name_is_refused(client, name):
    is_problem(client.post("/v1/captures", json={"name": name}), 422, "input.invalid_request")


def test_one_idempotency_key_makes_one_capture(client):
    headers = {"Idempotency-Key": "k1"}
    first = client.post("/v1/captures", json={"name": "x"}, headers=headers)
    again = client.post("/v1/captures", json={"name": "x"}, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    is_problem(client.post("/v1/captures", json={"name": "y"}, headers=headers), 422, "input.idempotency_key_reused")


def test_masks_and_poses_come_with_photos_and_are_none(client, capture):
    mask = encoded(1, "PNG", width=64, height=48)
    answer = send(
        client,
        capture,
        ("a.jpg", encoded(1)),
        ("b.jpg", encoded(2)),
        ("masks/a.jpg.png", mask),
        ("my capture/masks/b.jpg.png", mask),
        ("transforms.json", b'{"frames": []}'),
        ("capture/sparse/0/cameras.txt", b"# none\n"),
    )
    assert answer.status_code == 201
    states = {photo["name"]: photo["state"] for photo in answer.json()["photos"]}
    companions = ("masks/a.jpg.png", "masks/b.jpg.png", "transforms.json", "sparse/cameras.txt")
    assert states == {"a.jpg": "accepted", "b.jpg": "accepted"} | dict.fromkeys(companions, "companion")
    short = client.get(f"/v1/captures/{capture}").json()
    assert (short["accepted"], short["rejected"]) == (2, 0)
    again = send(client, capture, ("masks/a.jpg.png", mask), ("masks/c.jpg.png", mask)).json()
    assert [photo["is_duplicate"] for photo in again["photos"]] == [True, False]


def test_companions_that_are_none_are_refused_by_name(client, capture):
    body = send(client, capture, ("a.jpg", encoded(1)), ("masks/a.jpg.png", b"no picture"), ("transforms.json", b"\x00")).json()
    codes = {photo["name"]: photo["error"]["code"] for photo in body["photos"] if photo["error"]}
    assert codes == {"masks/a.jpg.png": "input.unsupported_type", "transforms.json": "input.unsupported_type"}


@pytest.mark.parametrize(
    "name", ["masks/../../x.png", "masks/..", "sparse/../cameras.bin", "masks/a/b.png", "settings.json", "../transforms.json"]
)
def test_companions_never_get_a_path_of_their_own(client, capture, name):
    answer = send(client, capture, ("a.jpg", encoded(1)), (name, encoded(2, "PNG"))).json()
    stored = answer["photos"][1]["name"]
    assert ".." not in stored.split("/")
    assert stored.count("/") == 0 or (stored.startswith("masks/") and stored.count("/") == 1)
