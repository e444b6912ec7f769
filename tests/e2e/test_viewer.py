"""The pages in a real browser, served by a real service: photos go in, the scene appears, upright and not mirrored."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Serve
from tests.e2e.chromium import BINARY, Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="Chromium is not installed")]

# Where to keep the screenshots, for people who want to look at them.
KEEP = os.environ.get("SPLATWORKS_SCREENSHOTS", "")
# Where things stand in the 800 x 600 window by the pinhole camera of scene_engine.py: x, y in pixels.
BALL, LAMP, COLUMN = (225, 387), (400, 122), (575, 275)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    service = Serve(tmp_path_factory.mktemp("browsed") / "data").start()
    page = httpx.get(service.url, trust_env=False)
    assert page.status_code == 200, page.text  # it says what to do when the pages are not built
    yield service
    service.stop()


@pytest.fixture(scope="module")
def photo_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    for n in range(4):
        Image.fromarray(random.integers(0, 255, (30, 40, 3), np.uint8)).resize((640, 480)).save(folder / f"{n}.jpg")
    (folder / "text.jpg").write_text("no photo")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def job(service: Serve, photo_files: list[Path]) -> dict:
    files = [("files", (path.name, path.read_bytes())) for path in photo_files]
    done = httpx.post(f"{service.url}/v1/jobs", files=files, headers={"Prefer": "wait=60"}, timeout=90, trust_env=False).json()
    assert done["state"] == "succeeded", done
    return done


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(800, 600) as browser:
        yield browser


def shoot(page: Page, name: str) -> np.ndarray:
    return page.screenshot(Path(KEEP) / f"{name}.png" if KEEP else None)


def check_quiet(page: Page, service: Serve, allowed: str = "$^") -> None:
    """No error, warning or policy violation in the console, and nothing asked of any other host."""
    # The software renderer remarks on its own speed.
    complaints = [each for each in page.complaints if "GL Driver Message (OpenGL, Performance" not in each and not re.search(allowed, each)]
    assert complaints == []
    assert page.requests
    assert [url for url in page.requests if not url.startswith((f"{service.url}/", f"blob:{service.url}/", "data:"))] == []


def colour_at(picture: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    x, y = place
    return picture[y - 4 : y + 5, x - 4 : x + 5].reshape(-1, 3).mean(axis=0)


def strongest(colour: np.ndarray) -> str:
    ordered = np.sort(colour)
    return ["red", "green", "blue"][int(np.argmax(colour))] if ordered[2] > 1.6 * ordered[1] else "none"


def test_scene_appears_upright_not_mirrored_and_from_the_first_photos_camera(service, job, browser):
    page = browser.new_page()
    page.open(f"{service.url}/jobs/{job['id']}/view")
    assert page.wait_for("document.body && document.body.dataset.state", 90) == "loaded"
    page.wait_for("!document.querySelector('#message')")
    picture = shoot(page, "viewer")
    assert {name: strongest(colour_at(picture, place)) for name, place in (("ball", BALL), ("lamp", LAMP), ("column", COLUMN))} == {
        "ball": "red",
        "lamp": "green",
        "column": "blue",
    }
    above, below = colour_at(picture, (400, 30)), colour_at(picture, (400, 540))
    assert above.max() < 40, "nothing hangs over the lamp"
    assert 60 < below.mean() < 200, "the ground lies below"
    assert np.ptp(below) < 25, "the ground is grey"
    check_quiet(page, service)


def test_a_shared_link_shows_the_scene_to_a_guest_and_asks_for_nothing_else(service, job, browser):
    made = httpx.post(f"{service.url}/v1/jobs/{job['id']}/shares", trust_env=False).raise_for_status().json()
    page = browser.new_page()
    page.open(made["url"])
    assert page.wait_for("document.body && document.body.dataset.state", 90) == "loaded"
    picture = shoot(page, "shared")
    assert strongest(colour_at(picture, BALL)) == "red", "seen from the first photo's camera"
    asked = {url.removeprefix(service.url) for url in page.requests if not url.startswith(("blob:", "data:"))}
    assert {path for path in asked if not path.startswith(("/static/", f"/s/{made['token']}"))} == set()
    assert page.evaluate("[...document.querySelectorAll('#bar a')].map((link) => link.textContent)") == ["Download .sog"]
    check_quiet(page, service)
    httpx.delete(f"{service.url}/v1/jobs/{job['id']}/shares/{made['id']}", trust_env=False).raise_for_status()
    assert httpx.get(made["url"], trust_env=False).status_code == 410


def test_the_view_follows_the_mouse(service, job, browser):
    page = browser.new_page()
    page.open(f"{service.url}/jobs/{job['id']}/view")
    page.wait_for("document.body && document.body.dataset.state === 'loaded'", 90)
    before = page.screenshot().astype(int)
    mouse = {"button": "left", "buttons": 1, "clickCount": 1}
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=400, y=300, **mouse)
    for x in range(400, 521, 20):
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=300, **mouse)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=520, y=300, **mouse)
    page.wait_for("new Promise((done) => setTimeout(() => done(true), 800))")
    after = shoot(page, "viewer-turned").astype(int)
    assert (np.abs(after - before).max(axis=2) > 40).mean() > 0.02
    check_quiet(page, service)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/jobs/01234567-0000-7000-8000-000000000000/view", "No such job"), ("/jobs/nonsense/view", "No such job")],
)
def test_a_scene_that_is_not_there_is_said_in_words(service, browser, path, words):
    page = browser.new_page()
    page.open(f"{service.url}{path}")
    assert page.wait_for("document.body && document.body.dataset.state") == "failed"
    assert words in page.evaluate("document.body.innerText")
    check_quiet(page, service, allowed="404")


def test_a_job_that_has_not_finished_says_so(service, photo_files, browser):
    files = [("files", (path.name, path.read_bytes())) for path in photo_files]
    form = {"options": '{"train": {"steps": 200000}}'}
    running = httpx.post(f"{service.url}/v1/jobs", files=files, data=form, trust_env=False).json()
    page = browser.new_page()
    page.open(f"{service.url}/jobs/{running['id']}/view")
    assert page.wait_for("document.body && document.body.dataset.state") == "failed"
    assert "Not ready yet" in page.evaluate("document.body.innerText")
    check_quiet(page, service)

    listed = browser.new_page()
    listed.open(f"{service.url}/")
    card = f"document.querySelector('#job-{running['id']}')"
    listed.wait_for(f"{card} && {card}.querySelector('li.running')")
    listed.evaluate(f"{card}.scrollIntoView({{block: 'center'}})")
    shoot(listed, "index-running")
    listed.evaluate(f"{card}.querySelector('button').click()")
    listed.wait_for(f"{card}.dataset.state === 'cancelled'")
    check_quiet(listed, service)


def test_photos_go_in_by_the_page_and_the_scene_opens_from_it(service, photo_files, browser):
    page = browser.new_page()
    page.open(f"{service.url}/")
    page.wait_for("document.querySelectorAll('.presets input').length >= 3")
    page.choose_files("#photos", photo_files)
    page.wait_for("document.querySelector('.chosen').innerText.startsWith('5 photos')")
    page.evaluate("document.querySelector('button.primary').click()")
    card = "document.querySelector('.job-list article')"
    page.wait_for(f"{card} && {card}.dataset.state === 'succeeded' && {card}.querySelector('.downloads')", 90)
    page.wait_for("document.querySelector('.chosen').innerText === 'No photos chosen yet.'")
    shoot(page, "index")
    text = page.evaluate(f"{card}.innerText")
    assert "4 of 4 photos placed" in text
    assert "9,000 gaussians" in text
    assert "scene.sog" in text
    assert "1 photo left out" in text
    assert "text.jpg is no photo" in page.evaluate(f"{card}.textContent")
    check_quiet(page, service)
    page.evaluate(f"{card}.querySelector('a.primary').click()")
    page.wait_for("location.pathname.endsWith('/view') && document.body && document.body.dataset.state === 'loaded'", 90)


def test_photos_that_cannot_be_used_are_named_with_what_to_do(service, photo_files, browser, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_text(f"no photo {name}")
    page = browser.new_page("dark")
    page.open(f"{service.url}/")
    page.wait_for("document.querySelectorAll('.presets input').length >= 3")
    page.choose_files("#photos", [photo_files[-1]])
    assert "At least 3 are needed" in page.wait_for("document.querySelector('.chosen').innerText")
    assert page.evaluate("document.querySelector('button.primary').disabled")
    page.choose_files("#photos", sorted(tmp_path.iterdir()))
    page.wait_for("!document.querySelector('button.primary').disabled")
    page.evaluate("document.querySelector('button.primary').click()")
    words = page.wait_for("document.querySelector('[role=alert]') && document.querySelector('[role=alert]').innerText")
    picture = shoot(page, "index-dark")
    assert "Too few photos" in words
    assert "text.jpg is no photo" in words
    assert picture[5, 5].max() < 60, "the page is dark where the reader wants it"
    check_quiet(page, service, allowed="422")
