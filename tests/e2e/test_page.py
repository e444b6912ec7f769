"""The page in a real browser beyond the straight way: a line that breaks, a key, links for others, a job once more."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Serve, run
from tests.e2e.chromium import BINARY, Page
from tests.e2e.test_viewer import check_quiet, shoot
from tests.services import until
from tests.videos import different, write_video

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="Chromium is not installed")]
CARD = "document.querySelector('.job-list article')"
UP_BYTES_PER_S = 50_000  # slow enough to break off in the middle, on a busy machine too


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    service = Serve(tmp_path_factory.mktemp("paged") / "data").start()
    yield service
    service.stop()


def begin(page: Page, service: Serve, photos: list[Path]) -> None:
    page.open(f"{service.url}/")
    page.wait_for("document.querySelectorAll('.presets input').length >= 3")
    page.choose_files("#photos", photos)
    page.wait_for("document.querySelector('.chosen').innerText.startsWith('4 photos')")
    page.evaluate("document.querySelector('button.primary').click()")


def network(page: Page, *, offline: bool, bytes_per_s: int = -1) -> None:
    page.call("Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=bytes_per_s)


def press(page: Page, words: str) -> None:
    page.evaluate(f"[...{CARD}.querySelectorAll('button')].find((each) => each.textContent === {words!r}).click()")


def test_photos_arrive_whole_over_a_line_that_breaks_and_the_scene_is_shown_while_it_grows(service, photos, browser):
    page = browser.new_page()
    network(page, offline=False, bytes_per_s=UP_BYTES_PER_S)
    begin(page, service, photos)
    page.wait_for("document.querySelector('.status progress')?.value > 0.1")
    network(page, offline=True)
    page.evaluate("document.querySelector('.files').open = true")
    page.wait_for("document.querySelector('.files').innerText.includes('waiting for the connection')")
    shoot(page, "page-offline")
    network(page, offline=False)
    page.wait_for(f"{CARD}", 60)
    assert any("/v1/uploads/" in url for url in page.requests), "each photo is an upload that goes on"
    job = service.get("/v1/jobs")["items"][0]
    stored = {photo["name"]: photo["size_bytes"] for photo in service.get(f"/v1/captures/{job['capture_id']}")["photos"]}
    assert stored == {path.name: path.stat().st_size for path in photos}
    page.wait_for(f"{CARD}.querySelector('.picture img')?.naturalWidth === 320", 60)
    page.wait_for(f"{CARD}.dataset.state === 'succeeded' && {CARD}.querySelector('.sharing')", 60)
    shoot(page, "page-done")
    check_quiet(page, service, allowed="ERR_INTERNET_DISCONNECTED|ERR_NETWORK|tus:")


def test_a_video_is_taken_like_photos(service, browser, tmp_path):
    page = browser.new_page()
    page.open(f"{service.url}/")
    page.wait_for("document.querySelectorAll('.presets input').length >= 3")
    page.choose_files("#photos", [write_video(tmp_path / "walk.mp4", different(8), per_s=4.0)])
    page.wait_for("document.querySelector('.chosen').innerText.startsWith('1 video, ')")
    page.wait_for("!document.querySelector('button.primary').disabled")
    shoot(page, "page-video")
    before = len(service.get("/v1/jobs")["items"])
    page.evaluate("document.querySelector('button.primary').click()")
    until(lambda: len(service.get("/v1/jobs")["items"]) > before)
    job = service.get("/v1/jobs")["items"][0]
    (video,) = service.get(f"/v1/captures/{job['capture_id']}")["photos"]
    assert (video["name"], video["kind"], video["state"]) == ("walk.mp4", "video", "accepted")


def test_a_link_opens_the_scene_for_others_until_it_is_revoked(service, browser):
    page = browser.new_page()
    page.open(f"{service.url}/")
    page.wait_for(f"{CARD} && {CARD}.querySelector('.sharing')")
    page.evaluate(f"{CARD}.querySelector('.sharing summary').click()")
    press(page, "Make a link")
    url = page.wait_for(f"{CARD}.querySelector('.links input')?.value")
    assert re.fullmatch(rf"{service.url}/s/[\w-]{{20,}}", url)
    shoot(page, "page-shared")
    other = browser.new_page()
    other.open(url)
    assert other.wait_for("document.body && document.body.dataset.state", 90) == "loaded"
    press(page, "Revoke")
    page.wait_for(f"!{CARD}.querySelector('.links li')")
    assert httpx.get(url, trust_env=False).status_code == 410
    check_quiet(page, service)


def test_an_ended_job_runs_once_more_from_a_stage_of_choice(service, browser):
    page = browser.new_page()
    page.open(f"{service.url}/")
    page.wait_for(f"{CARD} && {CARD}.querySelector('.again')")
    page.evaluate(f"{CARD}.querySelector('.again select').value = 'compress'")
    before = service.get("/v1/jobs")["items"][0]["id"]
    press(page, "Run again")
    page.wait_for(f"{CARD}.id !== 'job-{before}' && {CARD}.dataset.state === 'succeeded'", 60)
    again = service.get("/v1/jobs")["items"][0]
    assert again["parent_id"] == before
    check_quiet(page, service)


def test_a_service_that_asks_for_a_key_lets_the_browser_in_with_one(tmp_path, photos, browser):
    made = run("keys", "create", "--name", "browser", "--data-dir", str(tmp_path / "data"))
    assert made.returncode == 0, made.stderr
    service = Serve(tmp_path / "data", {"SPLATWORKS_REQUIRE_KEY": "1"}).start()
    try:
        page = browser.new_page()
        page.open(f"{service.url}/")
        page.wait_for("document.querySelector('.door input')")
        enter(page, "sk_wrong")
        page.wait_for("document.querySelector('.door [role=alert]')")
        shoot(page, "page-key")
        enter(page, made.stdout.strip())
        begin_inside(page, photos)
        page.wait_for(f"{CARD}?.dataset.state === 'succeeded' && {CARD}.querySelector('.picture img')?.naturalWidth", 60)
        shoot(page, "page-inside")
        page.evaluate("[...document.querySelectorAll('nav button')].find((each) => each.textContent === 'Sign out').click()")
        page.wait_for("document.querySelector('.door input')")
        check_quiet(page, service, allowed="401")
    finally:
        service.stop()


def enter(page: Page, key: str) -> None:
    page.evaluate(f"(document.querySelector('#key').value = {key!r}, document.querySelector('.door').requestSubmit())")


def begin_inside(page: Page, photos: list[Path]) -> None:
    page.wait_for("document.querySelectorAll('.presets input').length >= 3")
    page.choose_files("#photos", photos)
    page.evaluate("document.querySelector('button.primary').click()")
    until(lambda: page.evaluate(f"!!{CARD}"), 60)
