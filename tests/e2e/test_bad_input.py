"""Bad input ends in a clear error, or in success with the bad photo named. None hangs, none loses the others."""

import io

import pytest
from PIL import Image

from tests.data import bad_photos
from tests.e2e.conftest import SMALL, files_of

QUICK = {**SMALL, "train": {**SMALL["train"], "steps": 60, "min_psnr_db": 8.0}}


def complaint(job: dict) -> str:
    """Everything the user is told about what went wrong, after a check that it is all there."""
    error = job["error"]
    assert error["code"]
    assert error["detail"]
    return f"{error['code']}: {error['detail']} {error.get('hint') or ''}"


def test_two_photos_are_too_few(service, capture):
    job = service.outcome(files_of(capture[0])[:2])
    assert job["state"] in ("failed", "refused")
    assert "input.too_few_photos" in complaint(job)
    assert "2" in job["error"]["detail"]


def test_forty_copies_of_one_photo_are_one_photo(service, capture, tmp_path):
    job = service.outcome(files_of(bad_photos.copies(tmp_path / "copies", capture[0] / "DSC_00.jpg")))
    assert job["state"] in ("failed", "refused")
    assert "input.too_few_photos" in complaint(job)


def test_blank_photos_cannot_be_placed(service, tmp_path):
    job = service.outcome(files_of(bad_photos.blank(tmp_path / "blank")))
    assert job["state"] == "failed"
    assert job["error"]["code"].startswith(("capture.", "input."))
    assert len(complaint(job)) > 40


def test_a_text_file_called_jpg_is_refused_by_name(service, tmp_path):
    text = bad_photos.text_as_jpeg(tmp_path / "notes.jpg").read_bytes()
    job = service.outcome([("notes.jpg", text)])
    assert job["state"] == "refused"
    assert "notes.jpg" in str(job["error"])


def test_bad_files_among_good_photos_are_named_and_the_rest_becomes_a_splat(service, capture, tmp_path):
    folder, _ = capture
    photos = sorted(folder.glob("*.jpg"))
    hostile = bad_photos.hostile_names(tmp_path / "hostile", photos[:8])
    cut = bad_photos.truncated(tmp_path / "cut.jpg", photos[8])
    wide = bad_photos.wide_png(tmp_path / "wide.png")
    assert wide.stat().st_size < 1_000_000
    text = bad_photos.text_as_jpeg(tmp_path / "notes.jpg")
    sent = [(name, (tmp_path / "hostile" / name).read_bytes()) for name in hostile]
    sent += [(path.name, path.read_bytes()) for path in (cut, wide, text)]
    job = service.outcome(sent, QUICK)
    assert job["state"] == "succeeded", job
    report = service.http.get(f"/v1/jobs/{job['id']}/assets/report.json").json()
    assert report["registered"] == 8
    rejected = {photo["name"] for photo in job["uploaded"]["photos"] if photo["state"] == "rejected"}
    assert rejected >= {"notes.jpg", "wide.png"}
    assert report["stages"]["ingest"]["rejected"] == {"photo.truncated": 1}
    events = service.http.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": "0"}).text
    assert "cut.jpg" in events, "the photo that only decoding shows to be broken must be named to the user"


def test_two_scenes_in_one_capture_give_one_scene_or_a_clear_error(service, tmp_path):
    photos = files_of(bad_photos.two_scenes(tmp_path / "mixed", size=(480, 360)))
    assert len(photos) == 16
    job = service.outcome(photos, {**QUICK, "poses": {"target_registered": 0.5, "min_registered": 0.4}})
    if job["state"] == "succeeded":
        poses = service.http.get(f"/v1/jobs/{job['id']}/assets/report.json").json()["stages"]["poses"]
        assert poses["n_registered"] <= 8
        assert len({name[0] for name in poses["registered"]}) == 1, "photos of both scenes in one model"
        assert len(poses["unregistered"]) >= 8
    else:
        assert job["error"]["code"].startswith("capture.")
        assert any(name.split(".")[0] in complaint(job) + str(job["error"]) for name, _ in photos)


def test_an_upload_of_nothing_is_refused(service):
    assert service.send([("empty.jpg", b"")]).status_code == 422
    capture = service.http.post("/v1/captures").json()["id"]
    nothing = service.http.post(f"/v1/captures/{capture}/photos")
    assert 400 <= nothing.status_code < 500
    assert nothing.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"preset": "ultra"}, 422, "input.unknown_preset"),
        ({"options": {"train": {"steps": 0}}}, 422, "input.invalid_option"),
        ({"options": {"train": {"stepz": 5}}}, 422, "input.unknown_option"),
        ({"capture_id": "0193a0f0-0000-7000-8000-000000000000"}, 404, "not_found.capture"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(service, body, status, code):
    capture = service.http.post("/v1/captures").json()["id"]
    answer = service.http.post("/v1/jobs", json={"capture_id": capture, **body})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code)
    assert problem["detail"]


def test_a_job_on_an_empty_capture_is_refused(service):
    capture = service.http.post("/v1/captures").json()["id"]
    answer = service.http.post("/v1/jobs", json={"capture_id": capture})
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"].startswith("input.")


def test_a_picture_too_small_to_use_is_refused_by_name(service):
    small = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 40)).save(small, "JPEG")
    answer = service.send([("thumb.jpg", small.getvalue())])
    assert answer.status_code == 422
    assert "thumb.jpg" in answer.text
