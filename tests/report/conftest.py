"""A browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page from the disk; at the end it has had no error and sent no request."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    faults: list[str] = []

    def call(path: Path, fragment: str = "") -> Any:
        shown = context.new_page()
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        shown.on("request", lambda asked: None if _is_own(asked.url) else faults.append(asked.url))
        shown.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        shown.goto(f"{path.as_uri()}#{fragment}" if fragment else path.as_uri())
        shown.wait_for_selector("html[data-ready]", state="attached")
        return shown

    yield call
    context.close()
    assert faults == []


def _is_own(url: str) -> bool:
    return url.startswith(("file:", "blob:", "data:"))
