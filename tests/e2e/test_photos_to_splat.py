"""The main job: photos go up over HTTP, a splat comes down that decodes, looks like the photos, and knows where they were taken."""

import gzip
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from bench.poses import compare_poses, poses_of
from engine.formats.ply import read_ply
from engine.formats.sog_read import read_sog
from engine.formats.spz import read_spz
from tests.data.make_data import PLACE
from tests.e2e.conftest import files_of

ASSETS = ["cameras.json", "colmap.zip", "preview.webp", "report.json", "scene.ply", "scene.sog", "scene.splat", "scene.spz"]


@pytest.fixture(scope="module")
def job(service, capture):
    return service.outcome(files_of(capture[0]))


@pytest.fixture(scope="module")
def assets(service, job):
    assert job["state"] == "succeeded", job
    listed = service.http.get(f"/v1/jobs/{job['id']}/assets").raise_for_status().json()["items"]
    return {each["name"]: each for each in listed}


def fetch(service, job, name):
    return service.http.get(f"/v1/jobs/{job['id']}/assets/{name}").raise_for_status()


def test_the_job_succeeds_and_every_stage_is_done(job):
    assert job["state"] == "succeeded", job
    assert [stage["state"] for stage in job["stages"]] == ["done"] * 4
    assert job["progress"] == 1.0


def test_every_asset_is_what_the_list_says(service, job, assets):
    assert set(ASSETS) <= set(assets)
    for name, listed in assets.items():
        answer = fetch(service, job, name)
        assert len(answer.content) == listed["size_bytes"]
        assert hashlib.sha256(answer.content).hexdigest() == listed["sha256"]
        assert listed["sha256"] in answer.headers["ETag"]


def test_an_asset_comes_in_parts_and_not_again_when_it_is_known(service, job):
    path = f"/v1/jobs/{job['id']}/assets/scene.sog"
    whole = fetch(service, job, "scene.sog")
    part = service.http.get(path, headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, whole.content[100:300])
    assert service.http.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304


def test_the_report_shows_all_photos_registered_and_a_likeness(service, job):
    report = fetch(service, job, "report.json").json()
    assert (report["registered"], report["photos"]) == (12, 12)
    assert report["psnr_db"] > 20
    assert 0.5 < report["ssim"] <= 1
    assert set(report["seconds"]) == {"ingest", "poses", "train", "compress"}


def test_the_poses_are_the_true_ones(service, job, capture):
    cameras = fetch(service, job, "cameras.json").json()
    errors = compare_poses(poses_of(cameras), {name: view.cam_from_world for name, view in capture[1].views.items()})
    assert errors.n_compared == 12
    assert errors.rotation_median_deg < 0.2
    assert errors.position_median_m < 0.02


def test_the_formats_hold_the_same_gaussians(service, job, tmp_path):
    for name in ("scene.ply", "scene.spz", "scene.sog"):
        (tmp_path / name).write_bytes(fetch(service, job, name).content)
    ply, spz, sog = read_ply(tmp_path / "scene.ply"), read_spz(tmp_path / "scene.spz"), read_sog(tmp_path / "scene.sog")
    report = fetch(service, job, "report.json").json()
    assert len(ply) == len(spz) == len(sog) == report["gaussians"] > 1000
    size = np.ptp(np.quantile(ply.means, (0.05, 0.95), axis=0), axis=0).max()
    for other in (spz, sog):
        assert np.abs(np.median(other.means, axis=0) - np.median(ply.means, axis=0)).max() < 0.01 * size
        assert np.abs(other.sh[:, 0].mean(axis=0) - ply.sh[:, 0].mean(axis=0)).max() < 0.05


def test_nothing_served_tells_where_the_photos_were_taken(service, job, assets):
    for name in assets:
        content = plain(name, fetch(service, job, name).content)
        assert b"RAY-0042" not in content
        assert b"Exif" not in content  # in which GPS would lie; "GPS" alone comes by chance in a million packed bytes
        if name.endswith(".json"):
            assert "gps" not in json.dumps(json.loads(content)).lower().replace("n_with_gps", "")


def plain(name: str, content: bytes) -> bytes:
    """Return what a file holds, unpacked."""
    if name.endswith(".spz"):
        return gzip.decompress(content)
    if name.endswith((".zip", ".sog")):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return b"".join(archive.read(each) for each in archive.namelist())
    return content


def test_nothing_said_about_the_job_tells_where_the_photos_were_taken(service, job):
    base, events = f"/v1/jobs/{job['id']}", {"Accept": "application/json"}
    said = {path: service.http.get(path).raise_for_status().text for path in (base, f"{base}/logs", f"/v1/captures/{job['capture_id']}")}
    said["events"] = service.http.get(f"{base}/events", headers=events).raise_for_status().text
    degrees = [f"{whole + minutes / 60 + seconds / 3600:.3f}" for whole, minutes, seconds in PLACE]
    for path, text in said.items():
        assert len(text) > 100, path
        for secret in ("RAY-0042", *degrees):
            assert secret not in text, path


def test_the_viewer_page_names_the_job(service, job):
    page = service.http.get(f"/jobs/{job['id']}/view")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src" in page.headers["Content-Security-Policy"]
