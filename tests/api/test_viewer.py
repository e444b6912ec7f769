"""The routes of the pages: what they answer, and under which policy."""

import asyncio
import gzip
import re
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.routes import viewer
from api.settings import Settings


class Browser:
    """Asks the application in this process; the pages need no database, so nothing is started."""

    def __init__(self, data_dir: Path) -> None:
        self._app = create_app(Settings(data_dir=data_dir))

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://127.0.0.1") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(send())

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path / "data")


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small bundle in the place of the real one."""
    static = tmp_path / "static"
    (static / "assets").mkdir(parents=True)
    for name in ("index.html", "viewer.html", "icon.svg", "assets/index-Ab12.js"):
        (static / name).write_text(f"this is {name}")
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setattr(viewer, "STATIC", static)
    return static


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(("path", "name"), [("/", "index.html"), ("/jobs/some-id/view", "viewer.html")])
def test_pages_are_served_under_a_policy_that_allows_no_inline_script_and_no_other_host(browser, path, name):
    answer = browser.get(path)
    assert answer.text == f"this is {name}"
    policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert set(policy["script-src"].split()) == {"'self'", "'wasm-unsafe-eval'"}
    assert not re.search(r"unsafe-inline|'unsafe-eval'|https?:|\*", answer.headers["content-security-policy"])
    assert browser.ask("HEAD", path).status_code == 200


@pytest.mark.usefixtures("pages")
def test_hashed_files_are_kept_for_ever_and_others_asked_for_again(browser):
    assert "immutable" in browser.get("/static/assets/index-Ab12.js").headers["cache-control"]
    assert browser.get("/static/icon.svg").headers["cache-control"] == "no-cache"


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(
    "path",
    ["nothing.js", "../secret", "%2e%2e/secret", "assets/%2e%2e/%2e%2e/secret", "assets", "", "%00", "a" * 5000, "%ff", "//etc/passwd"],
)
def test_what_is_no_page_file_is_a_plain_404(browser, path):
    answer = browser.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip, br", "gzip"), ("identity", None)])
def test_large_files_are_sent_packed_to_browsers_that_take_it(browser, pages, accepted, encoding):
    (pages / "assets" / "index-Ab12.js.gz").write_bytes(gzip.compress(b"this is assets/index-Ab12.js"))
    answer = browser.ask("GET", "/static/assets/index-Ab12.js", {"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "javascript" in answer.headers["content-type"]
    assert answer.text == "this is assets/index-Ab12.js"


@pytest.mark.parametrize("path", ["/", "/jobs/some-id/view"])
def test_pages_that_are_not_built_say_how_to_build_them(browser, tmp_path, monkeypatch, path):
    monkeypatch.setattr(viewer, "STATIC", tmp_path / "nowhere")
    answer = browser.get(path)
    assert answer.status_code == 404
    assert answer.json()["hint"] == "Run `make web`."
