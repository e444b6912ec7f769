"""Videos over HTTP: every way up, what a capture and a job say of them, how many bytes and frames there may be."""

import pytest

from tests.api.conftest import is_problem
from tests.api.tus_client import begin, begun, patch
from tests.photos import encoded, form, upload
from tests.services import installed
from tests.videos import video_bytes

MAX_FILE, MAX_VIDEO = 20_000, 1_000_000


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> bytes:
    data = video_bytes(tmp_path_factory.mktemp("walk"))
    assert MAX_FILE < len(data) < MAX_VIDEO
    return data


@pytest.fixture(scope="module")
def installation(stack, tmp_path_factory):
    limits = {"max_file_bytes": MAX_FILE, "max_video_bytes": MAX_VIDEO, "max_photos": 250}
    with installed(stack, tmp_path_factory.mktemp("videos") / "data", **limits) as found:
        yield found


@pytest.fixture(scope="module")
def client(installation):
    with installation.api() as found:
        yield found


def listed(client, capture: str) -> list[tuple]:
    photos = client.get(f"/v1/captures/{capture}").json()["photos"]
    return [(photo["name"], photo["kind"], photo["state"], photo["format"], photo["width"]) for photo in photos]


def test_a_form_takes_a_video_beside_photos(client, capture, walk):
    files = form(("walk.mp4", walk), ("a.jpg", encoded(1)), ("masks/a.png", encoded(2, "PNG", 40, 30)), ("cut.mp4", walk[:5000]))
    body = client.post(f"/v1/captures/{capture}/photos", files=files).json()
    assert (body["accepted"], body["rejected"]) == (2, 1)
    assert listed(client, capture) == [
        ("walk.mp4", "video", "accepted", "mp4", 400),
        ("a.jpg", "photo", "accepted", "jpeg", 400),
        ("masks/a.png", "companion", "companion", "png", 40),
        ("cut.mp4", "video", "rejected", None, None),
    ]
    refused = body["photos"][3]
    assert refused["error"]["code"] == "input.unreadable_video"
    assert refused["error"]["hint"]
    again = client.post(f"/v1/captures/{capture}/photos", files=form(("other.mp4", walk))).json()
    assert again["duplicates"] == 1


def test_tus_takes_a_video_up_to_its_own_limit(client, capture, walk):
    url = begun(client, capture, walk, "walk.mp4")
    assert patch(client, url, 0, walk).status_code == 204
    assert listed(client, capture) == [("walk.mp4", "video", "accepted", "mp4", 400)]
    is_problem(begin(client, capture, MAX_VIDEO + 1, "walk.mp4"), 413, "input.too_large")
    body = is_problem(begin(client, capture, MAX_FILE + 1, "walk.jpg"), 413, "input.too_large")
    assert ".mp4" in body["hint"]
    assert client.options("/v1/uploads").headers["tus-max-size"] == str(MAX_VIDEO)


def test_a_photo_called_like_a_video_may_not_be_larger_for_that(client, capture):
    data = encoded(1) + bytes(MAX_FILE)
    url = begun(client, capture, data, "photo.mp4")
    assert patch(client, url, 0, data).status_code == 204
    found = client.get(url).json()
    assert (found["state"], found["error"]["code"]) == ("refused", "input.too_large")


def test_a_form_cuts_a_video_off_at_its_own_limit(client, capture, walk):
    files = form(("long.mp4", walk + bytes(MAX_VIDEO)), ("walk.mov", walk))
    body = client.post(f"/v1/captures/{capture}/photos", files=files).json()
    assert [photo["error"] and photo["error"]["code"] for photo in body["photos"]] == ["input.too_large", None]


@pytest.mark.parametrize("stack", ["servers"], indirect=True)
def test_the_object_store_takes_a_video_in_parts(client, capture, walk):
    import httpx

    wanted = {"capture_id": capture, "name": "walk.mp4", "size_bytes": len(walk), "mode": "parts"}
    made = client.post("/v1/uploads", json=wanted).json()
    (part,) = made["parts"]
    assert httpx.put(part["url"], content=walk, trust_env=False).status_code == 200
    assert client.post(f"{made['links']['self']}/complete").json()["photo"]["kind"] == "video"


def job_over(client, capture: str, **ingest):
    return client.post("/v1/jobs", json={"capture_id": capture, "options": {"ingest": ingest} if ingest else {}})


def test_a_video_alone_is_enough_for_a_job_and_counts_as_its_frames(client, capture, walk):
    client.post(f"/v1/captures/{capture}/photos", files=form(("walk.mp4", walk)))
    assert job_over(client, capture).json()["n_photos"] == 120
    assert job_over(client, capture, frames=30).json()["n_photos"] == 30
    is_problem(job_over(client, capture, frames=2), 422, "input.too_few_photos")


def test_photos_and_the_frames_of_videos_are_counted_together(client, capture, walk):
    client.post(f"/v1/captures/{capture}/photos", files=form(("walk.mp4", walk), ("more.mp4", walk + b"\0\0\0\x08free")))
    upload(client, capture, 4)
    assert job_over(client, capture).json()["n_photos"] == 244
    body = is_problem(job_over(client, capture, frames=124), 413, "input.too_many_photos")
    assert "252 photos; a job takes at most 250" in body["detail"]
    assert "ingest.frames" in body["hint"]


def test_one_job_by_form_from_a_video_alone(client, walk):
    answer = client.post("/v1/jobs", files=form(("walk.mp4", walk)))
    assert answer.status_code == 202, answer.text
    assert answer.json()["n_photos"] == 120
