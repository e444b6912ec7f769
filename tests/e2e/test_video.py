"""A video goes up over HTTP, and a splat comes down."""

import pytest
from PIL import Image

from tests.data.cameras import Walk
from tests.data.make_data import make_capture
from tests.e2e.conftest import SMALL
from tests.videos import write_video

PLAN = Walk(n_photos=16, width=480, height=360, turn_every=0, step_deg=5.0)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Eight seconds of a walk about the scene, two pictures a second, and what is no video beside."""
    folder = tmp_path_factory.mktemp("film")
    shots = sorted(make_capture(folder / "shots", PLAN).views)
    walk = write_video(folder / "walk.mp4", [Image.open(folder / "shots" / name) for name in shots], per_s=2.0)
    return [("broken.mp4", walk.read_bytes()[:40_000]), ("walk.mp4", walk.read_bytes())]


def test_a_video_becomes_a_splat_that_passes_the_gate(service, film):
    job = service.outcome(film, SMALL)
    assert job["state"] == "succeeded", job
    assert [photo["kind"] for photo in job["uploaded"]["photos"]] == ["video", "video"]
    assert job["n_photos"] == PLAN.n_photos, "once the video is read its frames are counted"
    report = service.http.get(f"/v1/jobs/{job['id']}/assets/report.json").json()
    assert report["stages"]["ingest"]["n_videos"] == 1
    assert (report["photos"], report["registered"]) == (PLAN.n_photos, PLAN.n_photos)
    assert report["stages"]["ingest"]["n_cameras"] == 1
    assert report["psnr_db"] > 15.0
    assert [each["name"] for each in job["result"]["left_out"]] == ["broken.mp4"]
    cameras = service.http.get(f"/v1/jobs/{job['id']}/assets/cameras.json").text
    assert "walk_00001.jpg" in cameras
