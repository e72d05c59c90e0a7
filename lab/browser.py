"""Debian's Chromium, without a window."""

from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_DRIVER = "/usr/bin/chromedriver"


@contextmanager
def chromium(*, javascript: bool = True) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own, which is removed with it."""
    chosen = webdriver.ChromeOptions()
    # Root has no sandbox, and a container no large /dev/shm.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        chosen.add_argument(argument)
    if not javascript:
        content = {"profile.managed_default_content_settings.javascript": 2}
        chosen.add_experimental_option("prefs", content)
    chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(chosen, Service(_DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def shape(
    browser: webdriver.Chrome, width: int, height: int, *, dark: bool = False, mobile: bool = False
) -> None:
    """A screen of this size in CSS pixels, and a person's choice of dark or light."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": mobile})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
