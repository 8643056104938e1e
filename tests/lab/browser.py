"""A real browser: the system's Chromium, headless, with everything it says on its console kept."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright

from tests.lab.processes import absent

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install -y --no-install-recommends chromium"
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Skips the test where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        absent("Chromium", INSTALL)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


class Window:
    """A page of its own profile. `complaints` are errors of scripts and of the pages' policy."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self._said(said.type, said.text))

    async def go(self, path: str) -> None:
        await self.page.goto(f"{self._url}{path}")

    async def violations(self) -> list[str]:
        """What axe-core finds wrong for people with disabilities, and what is wider than the window."""
        found = (await Axe().run(self.page)).response["violations"]
        told = [f"{one['id']}: {[node['html'] for node in one['nodes']][:3]}" for one in found]
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return [*told, f"{wide} pixels too wide"] if wide > 0 else told

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.complaints.append(text)


@asynccontextmanager
async def window(browser: Browser, url: str, **options: Any) -> AsyncIterator[Window]:
    context = await browser.new_context(**{"viewport": DESKTOP, "locale": "en-GB", **options})
    try:
        yield Window(await context.new_page(), url)
    finally:
        await context.close()
