"""A real browser: Debian's Chromium without a window, and what it has to complain of in a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import ConsoleMessage, Page, sync_playwright

WIDTH, HEIGHT = 1440, 900


@dataclass
class Tab:
    """A page, and what went wrong in it so far.

    Attributes:
        page: Playwright's.
        errors: what its console calls errors, what its scripts raised, and requests that failed.
        requested: the addresses that it asked for.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")


@contextmanager
def chromium(*, offline: bool = False) -> Iterator[Tab]:
    """An empty tab of a browser of its own, with nothing remembered.

    Args:
        offline: whether there is no network at all, not even this machine's.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"],  # root, as which CI runs, cannot have it
        )
        context = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT}, offline=offline, locale="en-GB"
        )
        try:
            yield Tab(context.new_page())
        finally:
            browser.close()
