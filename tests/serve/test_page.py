"""The chat page in a real browser: asks, streams, stops, judges, changes language, and never runs what it shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_serve import DIALOGUES, ENDLESS, Server

from wuxing.core.exchange import ExchangeLog

PAGE = Path(__file__).parents[2] / "wuxing" / "serve" / "page"
sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))


# ------------------------------------------------------------------------------------------------ without a browser


def test_both_languages_have_the_same_words() -> None:
    text = (PAGE / "words.js").read_text()
    english, chinese = text.split("  zh: {")
    keys = [re.findall(r"^    (\w+):", part, re.M) for part in (english, chinese)]
    assert keys[0] == keys[1] and len(keys[0]) > 40
    used = set(re.findall(r'data-(?:word|hint|title|label)="(\w+)"', (PAGE / "chat.html").read_text()))
    used |= set(re.findall(r'say\("(\w+)"', (PAGE / "chat.js").read_text()))
    assert used <= set(keys[0])


def test_nothing_comes_from_elsewhere_and_nothing_is_inline() -> None:
    for path in PAGE.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text()
            assert not re.search(r"https?://(?!www\.w3\.org)", text), path
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), path
    html = (PAGE / "chat.html").read_text()
    assert not re.search(r"\son\w+=|<script(?! type=\"module\" src=)|<style|\sstyle=", html)


# --------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One headless Chromium that has shown its key."""
    if os.environ.get("WUXING_SKIP_BROWSER"):
        pytest.skip("WUXING_SKIP_BROWSER is set")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.fail("the page's tests need a browser: apt-get install chromium chromium-driver")
    from screenshots import open_browser

    browser = open_browser(str(tmp_path_factory.mktemp("profile")), 1100, 760)
    try:
        browser.get(server.url)
        find(browser, "#key").send_keys(server.key + "\n")
        until(browser, lambda: find_all(browser, "#release") and "release/tiny@v3" in find(browser, "#release").text)
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def page(browser: Any) -> Any:
    """A new conversation in English."""
    browser.execute_script("localStorage.clear(); localStorage.setItem('wuxing.language', 'en')")
    browser.refresh()
    until(browser, lambda: "release/tiny@v3" in find(browser, "#release").text)
    return browser


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def find_all(browser: Any, selector: str) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", selector)
    return found


def until(browser: Any, condition: Callable[[], Any], seconds: float = 15) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    # An element found on a page that is just being replaced goes stale: look again.
    wait = WebDriverWait(browser, seconds, poll_frequency=0.02, ignored_exceptions=[StaleElementReferenceException])
    wait.until(lambda _: condition())


def ask(browser: Any, question: str) -> Any:
    """Ask, wait for the end, return the answer's element."""
    from screenshots import ask as ask_and_wait

    ask_and_wait(browser, question)
    return find_all(browser, ".assistant")[-1]


@pytest.mark.browser
def test_ask_judge_comment_and_change_language(page: Any, server: Server) -> None:
    answer = ask(page, DIALOGUES[1][0])
    assert find(answer, ".text").text == DIALOGUES[1][1]
    facts = find(answer, ".facts").text
    assert facts.startswith("release/tiny@v3 · ") and "tokens/s" in facts
    find(answer, ".down").click()
    until(page, lambda: find(answer, ".down").get_attribute("aria-pressed") == "true")
    find(answer, ".comment input").send_keys("It should show its work\n")
    until(page, lambda: "sent" in find(answer, ".comment").get_attribute("class"))
    assert find(answer, ".thanks").text == "Thank you, noted."
    (judgement,) = [j for j in ExchangeLog(server.home, "tiny").judgements().values() if "show its work" in j.comment]
    assert (judgement.thumb, judgement.key) == ("down", "first")

    find(page, "#language").click()
    assert find(page, "html").get_attribute("lang") == "zh-CN"
    assert find(page, "#prompt").get_attribute("placeholder") == "请输入问题……"
    assert find(answer, ".thanks").text == "谢谢，已记录。" and "词元/秒" in find(answer, ".facts").text
    find(page, "#new").click()  # the small model knows its lines only as first questions
    assert find(ask(page, DIALOGUES[3][0]), ".text").text == DIALOGUES[3][1]
    page.refresh()
    until(page, lambda: find(page, "h2").text == "想问点什么？")


@pytest.mark.browser
def test_what_is_written_is_never_run(page: Any) -> None:
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    ask(page, attack)
    assert find(page, ".user .text").text == attack
    find(page, "#new").click()
    answer = ask(page, DIALOGUES[5][0])
    assert find(answer, ".text").text == DIALOGUES[5][1]
    assert not find_all(page, ".text *") and page.title == "tiny · Wuxing"
    ran = page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.inline = 1'; document.body.append(s);"
        "return window.inline"
    )
    assert ran is None, "the content policy lets inline scripts run"


@pytest.mark.browser
def test_an_answer_streams_and_stops(page: Any, server: Server) -> None:
    slide(page, "max-tokens", 1008)
    find(page, "#prompt").send_keys(ENDLESS[0] + "\n")
    until(page, lambda: find_all(page, ".growing"))
    early = len(find(page, ".assistant .text").text)
    until(page, lambda: len(find(page, ".assistant .text").text) > early)
    find(page, "#stop").click()
    until(page, lambda: find(page, "#send").is_displayed())
    assert "stopped" in find(page, ".assistant .facts").text
    until(page, lambda: server.metric("wuxing_rows_in_use") == 0)
    find(page, "#prompt").send_keys("Hello\n")
    until(page, lambda: len(find_all(page, ".assistant")) == 2)
    page.find_element("css selector", "body").send_keys("\ue00c")  # Escape
    until(page, lambda: find(page, "#send").is_displayed())


def slide(page: Any, name: str, value: float) -> None:
    page.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('input'))",
        name,
        value,
    )


@pytest.mark.browser
def test_settings_are_used_and_remembered(page: Any) -> None:
    find(page, "#settings-open").click()
    assert find(page, "#settings").is_displayed()
    slide(page, "max-tokens", 16)
    slide(page, "temperature", 0.0)
    find(page, "#settings button").click()
    answer = ask(page, DIALOGUES[4][0])
    assert "16 tokens" in find(answer, ".facts").text and "cut at the longest length" in find(answer, ".facts").text
    page.refresh()
    until(page, lambda: find(page, "#max-tokens-shown").get_attribute("textContent") == "16")


@pytest.mark.browser
def test_errors_are_clear_and_can_be_tried_again(page: Any) -> None:
    page.execute_script("document.getElementById('prompt').value = 'word '.repeat(3000)")
    find(page, "#send").click()
    until(page, lambda: find_all(page, ".error")[-1].is_displayed())
    assert "too long for the model" in find(page, ".assistant .error").text
    find(page, ".assistant .error button").click()  # it offers a new conversation
    assert not find_all(page, ".message") and find(page, "#welcome").is_displayed()
    page.execute_cdp_cmd("Network.enable", {})
    page.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*completions*"]})
    answer = ask(page, "Hello")
    assert "cannot be reached" in find(answer, ".error").text
    page.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    find(answer, ".error button").click()
    until(page, lambda: find_all(page, ".assistant .text")[-1].text == DIALOGUES[0][1])
    assert len(find_all(page, ".assistant")) == 1


@pytest.mark.browser
def test_keyboard_and_names(page: Any) -> None:
    assert page.execute_script("return document.activeElement.id") == "prompt"
    nameless = page.execute_script(
        "return [...document.querySelectorAll('button, input, textarea')].filter(e => e.closest('template') === null)"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels || []).length))"
        ".map(e => e.id)"
    )
    assert nameless == []
    find(page, "#prompt").send_keys("one")
    find(page, "#prompt").send_keys("\ue008\ue007")  # Shift+Enter
    assert find(page, "#prompt").get_attribute("value") == "one\n" and not find_all(page, ".message")


@pytest.mark.browser
def test_the_browser_saw_no_error(page: Any) -> None:
    ask(page, "Hello")
    entries = [e for e in page.get_log("browser") if e["level"] == "SEVERE"]
    provoked = ("completions", "inline", "401 (Unauthorized)")  # by the tests above: a long prompt, an attack, no key
    unexpected = [e["message"] for e in entries if not any(word in e["message"] for word in provoked)]
    assert unexpected == [], json.dumps(unexpected)


@pytest.mark.browser
def test_the_form_for_a_key(page: Any, server: Server) -> None:
    page.delete_all_cookies()
    page.get(server.url)
    find(page, "#key").send_keys("wx-wrong\n")
    until(page, lambda: "This key is not valid" in find(page, "body").text)
    assert page.execute_script("return getComputedStyle(document.querySelector('main')).borderRadius") == "16px"
    find(page, "#key").send_keys(server.key + "\n")
    until(page, lambda: find_all(page, "#release") and "release/tiny@v3" in find(page, "#release").text)
    assert "ticket" not in page.current_url and "key" not in page.current_url
