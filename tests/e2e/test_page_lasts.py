"""The page in a real browser over time: many jobs at once, progress, a service that goes away, a session that ends, an upload cut off."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from tests.cli.conftest import Serve, run
from tests.e2e.chromium import BINARY, Browser, Page
from tests.e2e.test_page import CARD, enter, network, press
from tests.e2e.test_viewer import check_quiet, shoot

pytestmark = [pytest.mark.browser, pytest.mark.skipif(BINARY is None, reason="Chromium is not installed")]
LONG = '{"train": {"steps": 200000}}'
STATUS = "document.querySelector('.status')"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    service = Serve(tmp_path_factory.mktemp("lasting") / "data").start()
    yield service
    service.stop()


def start(service: Serve, photos: list[Path], options: str = "{}") -> str:
    files = [("files", (path.name, path.read_bytes())) for path in photos]
    return httpx.post(f"{service.url}/v1/jobs", files=files, data={"options": options}, trust_env=False).raise_for_status().json()["id"]


def cancel_all(service: Serve) -> None:
    for job in service.get("/v1/jobs")["items"]:
        httpx.post(f"{service.url}/v1/jobs/{job['id']}/cancel", trust_env=False)


def visit(browser: Browser, service: Serve) -> Page:
    page = browser.new_page()
    page.open(f"{service.url}/")
    page.wait_for("document.querySelectorAll('.presets input').length >= 3")
    return page


def click(page: Page, words: str) -> None:
    page.evaluate(f"[...document.querySelectorAll('#new button, nav button')].find((each) => each.textContent === {words!r}).click()")


def finish(page: Page, service: Serve) -> str:
    """Press Start and wait until the new job has succeeded; its capture's id."""
    known = page.evaluate("document.querySelectorAll('article').length")
    click(page, "Start")
    page.wait_for(f"document.querySelectorAll('article').length > {known} && {CARD}.dataset.state === 'succeeded'", 60)
    return service.get("/v1/jobs")["items"][0]["capture_id"]


def after(page: Page, seconds: float) -> None:
    page.wait_for(f"new Promise((done) => setTimeout(() => done(true), {1000 * seconds}))")


def test_many_jobs_at_once_leave_the_page_its_connections(service, photos, browser):
    for _ in range(8):
        start(service, photos, LONG)
    page = visit(browser, service)
    page.wait_for("document.querySelectorAll('article').length === 8")
    after(page, 1)
    asked = "fetch('/v1/presets').then((answer) => answer.status)"
    assert page.evaluate(f"Promise.race([{asked}, new Promise((done) => setTimeout(() => done('blocked'), 5000))])") == 200
    check_quiet(page, service)
    cancel_all(service)


def test_progress_moves_neither_the_page_nor_the_focus_and_shows_in_the_title(service, photos, browser):
    start(service, photos, LONG)
    page = visit(browser, service)
    page.wait_for(f"{CARD}?.querySelector('.stages li:nth-child(3)').className === 'running'")
    page.evaluate(f"{CARD}.querySelector('.actions button').focus()")
    height = page.evaluate(f"{CARD}.offsetHeight")
    before = page.evaluate(f"{CARD}.querySelector('.now').innerText")
    page.wait_for(f"{CARD}.querySelector('.picture img')?.naturalWidth")
    page.wait_for(f"{CARD}.querySelector('.now').innerText !== {before!r}")
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    assert page.evaluate(f"{CARD}.offsetHeight") == height
    assert page.evaluate("document.title").endswith(" % · Splatworks")
    press(page, "Cancel")
    page.wait_for(f"{CARD}.dataset.state === 'cancelled'")
    assert page.evaluate("document.title") == "Splatworks"
    assert page.evaluate(f"{CARD}.contains(document.activeElement)"), "whoever was at the button is not thrown back to the top"


def test_a_page_left_open_goes_on_by_itself_when_the_service_is_back(photos, browser, tmp_path):
    service = Serve(tmp_path / "data").start()
    try:
        job = start(service, photos, '{"train": {"steps": 30000}}')
        page = visit(browser, service)
        page.wait_for(f"{CARD}?.querySelector('.stages li:nth-child(3)').className === 'running'")
        service.port = urlsplit(service.url).port or 0
        service.stop()
        page.wait_for("document.querySelector('.connection')?.checkVisibility()")
        after(page, 4)
        shoot(page, "page-away")
        assert page.evaluate("document.querySelectorAll('.notice').length") == 0, "said once, not by each job again and again"
        service.start()
        page.wait_for("!document.querySelector('.connection').checkVisibility()")
        page.wait_for(f"{CARD}.id === 'job-{job}' && {CARD}.dataset.state === 'succeeded' && {CARD}.querySelector('.downloads')", 90)
    finally:
        service.stop()


def test_a_session_that_ends_keeps_what_was_chosen(photos, browser, tmp_path):
    made = run("keys", "create", "--name", "browser", "--data-dir", str(tmp_path / "data"))
    assert made.returncode == 0, made.stderr
    service = Serve(tmp_path / "data", {"SPLATWORKS_REQUIRE_KEY": "1"}).start()
    try:
        page = browser.new_page()
        page.open(f"{service.url}/")
        page.wait_for("document.querySelector('.door input')")
        enter(page, made.stdout.strip())
        page.wait_for("document.querySelectorAll('.presets input').length >= 3")
        page.choose_files("#photos", photos)
        page.call("Network.clearBrowserCookies")
        click(page, "Start")
        page.wait_for("document.querySelector('.door')?.innerText.includes('session has ended')")
        enter(page, made.stdout.strip())
        page.wait_for("!document.querySelector('.door')")
        assert page.evaluate("document.querySelector('.chosen').innerText").startswith("4 photos")
        click(page, "Start")
        page.wait_for(f"{CARD}?.dataset.state === 'succeeded'", 60)
    finally:
        service.stop()


def test_an_upload_can_be_stopped_and_goes_on_after_a_reload(service, photos, browser, tmp_path):
    (tmp_path / "a.jpg").write_text("no photo")
    files = [tmp_path / "a.jpg", *photos]
    page = visit(browser, service)
    n_jobs = len(service.get("/v1/jobs")["items"])
    network(page, offline=False, bytes_per_s=100_000)
    page.choose_files("#photos", files)
    click(page, "Start")
    page.wait_for(f"{STATUS}.innerText.includes('Left out: a.jpg is no photo')"), "named while the others are sent"
    page.wait_for(f"{STATUS}.querySelector('progress').value > 0.3")
    assert page.evaluate("document.querySelector('.drop').inert"), "no second upload beside this one"
    click(page, "Stop")
    page.wait_for(f"{STATUS}.innerText.startsWith('Stopped')")
    assert len(service.get("/v1/jobs")["items"]) == n_jobs
    page.call("Page.reload")
    page.wait_for(f"{STATUS}?.innerText.includes('An upload of 5 files was cut off')")
    sent = len([url for url in page.requests if url.endswith("/v1/captures")])
    network(page, offline=False)
    page.wait_for("document.querySelector('.job-list').hasChildNodes()")
    page.choose_files("#photos", files)
    finish(page, service)
    assert len([url for url in page.requests if url.endswith("/v1/captures")]) == sent, "the same capture as before"


def test_a_folder_brings_its_masks_along(service, photos, browser, tmp_path):
    folder = tmp_path / "statue"
    (folder / "masks").mkdir(parents=True)
    for path in photos:
        (folder / path.name).write_bytes(path.read_bytes())
        Image.new("L", (640, 480), 255).save(folder / "masks" / f"{path.stem}.png")
    (folder / "notes.txt").write_text("left alone")
    page = visit(browser, service)
    page.wait_for("document.querySelector('.job-list').hasChildNodes()")
    page.choose_files("#folder", [folder])
    said = page.wait_for("document.querySelector('.chosen').innerText.startsWith('4') && document.querySelector('.chosen').innerText")
    assert "with 4 masks" in said
    assert "1 other file left alone" in said
    capture = service.get(f"/v1/captures/{finish(page, service)}")
    assert {photo["name"] for photo in capture["photos"] if photo["state"] == "companion"} == {f"masks/{n}.png" for n in range(4)}


def test_a_link_that_is_over_says_so_in_words(service, browser):
    page = browser.new_page()
    page.open(f"{service.url}/s/{'x' * 43}")
    assert page.wait_for("document.body && document.body.dataset.state") == "failed"
    assert "No such link" in page.evaluate("document.body.innerText")
    check_quiet(page, service, allowed="404")


def test_a_narrow_phone_scrolls_down_only(service, photos, browser):
    page = visit(browser, service)
    page.choose_files("#photos", photos)
    page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    page.wait_for(f"{CARD}?.querySelector('.sharing')")
    page.evaluate("[...document.querySelectorAll('details')].forEach((each) => (each.open = true))")
    press(page, "Make a link")
    page.wait_for(f"{CARD}.querySelector('.links input')")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_hidden_page_gives_its_stream_back_and_the_picture_comes_all_the_same(service, photos, browser):
    cancel_all(service)
    job = start(service, photos, LONG)
    page = browser.new_page()
    hidden = "Object.defineProperty(document, 'visibilityState', {value: 'hidden'})"
    page.call("Page.addScriptToEvaluateOnNewDocument", source=hidden)
    page.open(f"{service.url}/")
    page.wait_for(f"{CARD}?.querySelector('.picture img')?.naturalWidth", 60)
    news = [url for url in page.requests if url.endswith(f"{job}/events")]
    assert len(news) == 1, "the list of events at first; a stream would be the second"
    cancel_all(service)


def test_a_job_is_deleted_by_keyboard_when_that_is_said_twice(service, photos, browser):
    job = start(service, photos)
    page = visit(browser, service)
    page.wait_for(f"document.querySelector('#job-{job} .removal button')", 60)
    page.evaluate(f"document.querySelector('#job-{job} .removal button').focus()")
    type_key(page, "Enter", "\r")
    assert page.evaluate("document.activeElement.textContent") == "Delete for good?"
    type_key(page, "Escape")
    assert page.evaluate("document.activeElement.textContent") == "Delete"
    type_key(page, "Enter", "\r")
    type_key(page, "Enter", "\r")
    page.wait_for(f"!document.querySelector('#job-{job}')")
    assert httpx.get(f"{service.url}/v1/jobs/{job}", trust_env=False).status_code == 410


def type_key(page: Page, name: str, text: str | None = None) -> None:
    code = {"Enter": 13, "Escape": 27}[name]
    given = {"key": name, "code": name, "windowsVirtualKeyCode": code}
    page.call("Input.dispatchKeyEvent", type="keyDown", **given, **({"text": text} if text else {}))
    page.call("Input.dispatchKeyEvent", type="keyUp", **given)
