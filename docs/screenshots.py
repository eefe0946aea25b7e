"""Take the pictures of the docs: of the chat page from a running server, or of any page as it opens (`--plain`).

    wuxing serve first-model@production        # prints: Chat page, opens once: http://127.0.0.1:8000/?ticket=...
    python docs/screenshots.py "http://127.0.0.1:8000/?ticket=..." docs/images/chat.png
    python docs/screenshots.py --plain file://$PWD/.wuxing/corpus/articles/v1/report.html docs/images/data-report.png

Needs Debian's chromium and chromium-driver and the Python package selenium.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --force-device-scale-factor=1"
)
QUESTIONS = ("Hello", "What is 7 + 5?")


def open_browser(profile: str, width: int, height: int, dark: bool = False, language: str = "en") -> webdriver.Chrome:
    """A fresh headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument(f"--window-size={width},{height}")
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    service = webdriver.ChromeService(shutil.which("chromedriver") or "/usr/bin/chromedriver")
    browser = webdriver.Chrome(options, service)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    theme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", theme)
    return browser


def ask(browser: webdriver.Chrome, question: str) -> None:
    """Type a question and wait for its whole answer."""
    before = len(browser.find_elements(By.CSS_SELECTOR, ".assistant"))
    browser.find_element(By.ID, "prompt").send_keys(question + "\n")
    WebDriverWait(browser, 60).until(
        lambda b: (
            len(b.find_elements(By.CSS_SELECTOR, ".assistant")) > before
            and b.find_elements(By.CSS_SELECTOR, ".assistant")[-1].get_attribute("aria-busy") is None
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="the address that `wuxing serve` printed, with its ticket")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1100)
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--language", default="en", choices=("en", "zh"))
    parser.add_argument("--plain", action="store_true", help="any page, as it opens: nothing is asked")
    parser.add_argument("--question", action="append", help=f"may be given more than once; {QUESTIONS} unless given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile, given.width, given.height, given.dark)
        try:
            browser.get(given.page)
            if given.plain:
                time.sleep(1)
                browser.save_screenshot(str(given.picture))
                return
            WebDriverWait(browser, 20).until(lambda b: "@v" in b.find_element(By.ID, "release").text)
            if given.language == "zh":
                browser.find_element(By.ID, "language").click()
            for question in given.question or QUESTIONS:
                ask(browser, question)
            browser.find_elements(By.CSS_SELECTOR, ".assistant .up")[-1].click()
            time.sleep(0.5)
            given.picture.parent.mkdir(parents=True, exist_ok=True)
            browser.save_screenshot(str(given.picture))
        finally:
            browser.quit()
    print(given.picture)


if __name__ == "__main__":
    sys.exit(main())
