"""A real browser without a window."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

# Debian's names of its packages chromium and chromium-driver.
FOUND = [path for path in [shutil.which("chromium")] if path and shutil.which("chromedriver")]
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1240,1000",
)


@contextlib.contextmanager
def opened(path: str, profile: Path) -> Iterator[webdriver.Chrome]:
    """The browser at a path, while the block runs; afterwards its console must have no error."""
    options = webdriver.ChromeOptions()
    options.binary_location = path
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
        severe = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
        errors = [message for message in severe if "favicon" not in message]
        assert not errors, errors
    finally:
        driver.quit()


def until(driver: webdriver.Chrome, holds: Callable[[webdriver.Chrome], Any]) -> Any:
    """Waits until something holds of the page; returns it."""
    return WebDriverWait(driver, 10).until(holds)


def text(driver: webdriver.Chrome, selector: str) -> str:
    """What a reader sees of an element."""
    return driver.find_element("css selector", selector).text
