"""The page `/docs` in a real browser: it shows every route, and calls them, with nothing from any other host."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.client import Client

pytestmark = pytest.mark.e2e

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PATIENCE_MS = 30_000
# Nothing that the browser would want to fetch for itself.
QUIET = ["--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update"]


def _chromium() -> str | None:
    """Where a browser is: the one that `CHROMIUM` names, or the first on the path."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = _chromium()
    if found is None:
        pytest.skip("there is no Chromium here: install one (Debian: apt-get install chromium), or name it in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


class Visit:
    """A page of a new browser profile, with all that it said and asked for."""

    def __init__(self, browser: Browser) -> None:
        self.page: Page = browser.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on(
            "console", lambda one: self.complaints.append(one.text) if one.type in {"error", "warning"} else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))


def test_the_page_lists_every_route_and_needs_no_other_host(client: Client, browser: Browser) -> None:
    base = client.house.stack.api_url
    document = client.call("GET", "/openapi.json").json()
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    visit = Visit(browser)
    visit.page.goto(f"{base}/docs")
    expect(visit.page.locator(".opblock")).to_have_count(len(routes), timeout=PATIENCE_MS)
    shown = set()
    for block in visit.page.locator(".opblock-summary").all():
        path = block.locator(".opblock-summary-path").get_attribute("data-path")
        shown.add((block.locator(".opblock-summary-method").inner_text(), path))
    assert shown == routes
    expect(visit.page.locator(".info .title")).to_contain_text(document["info"]["title"])
    assert visit.complaints == []
    assert {url for url in visit.asked if not url.startswith("data:")} == {f"{base}/docs", f"{base}/openapi.json"}
    with visit.page.expect_response(f"{base}/openapi.json") as answered:
        visit.page.evaluate(
            "address => { window.location = address }", visit.page.locator(".info a.link").get_attribute("href")
        )
    assert answered.value.json()["openapi"] == document["openapi"], "where the page's own link leads"


def test_a_route_is_tried_from_the_page_with_a_key(client: Client, browser: Browser) -> None:
    visit = Visit(browser)
    page = visit.page
    page.goto(f"{client.house.stack.api_url}/docs")
    page.locator(".btn.authorize").first.click()
    page.locator(".auth-container input").fill(client.house.stack.api_key)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()
    block = page.locator(".opblock").filter(has=page.locator('[data-path="/connections"]'))
    block.locator(".opblock-summary").click()
    block.locator(".try-out__btn").click()
    block.locator(".execute").click()
    answer = block.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_contain_text("200", timeout=PATIENCE_MS)
    names = {one["name"] for one in json.loads(answer.locator(".highlight-code code").inner_text())["connections"]}
    assert names == {one["name"] for one in client.call("GET", "/connections").json()["connections"]}
    assert visit.complaints == []
