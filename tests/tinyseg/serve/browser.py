"""A real browser for tests of pages: Debian's Chromium, without a window, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def missing(reason: str) -> None:
    """Skip, or fail where TINYSEG_REQUIRE_BROWSER=1 says that the browser must be there."""
    if os.environ.get("TINYSEG_REQUIRE_BROWSER") == "1":
        pytest.fail(f"TINYSEG_REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A Playwright browser; flags are added to the usual ones."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra
    except ImportError:
        missing("playwright is not installed (the test extra)")
    path = os.environ.get("TINYSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing("chromium is not installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()
