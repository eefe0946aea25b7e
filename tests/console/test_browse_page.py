"""The browse page in a real browser and over HTTP: filters, pages, opens, plays, and answers nobody else."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wuxing.core.record import Record
from wuxing.core.splits import write_records
from wuxing.corpus.browse.query import Corpus

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "wuxing" / "console" / "page"
sys.path.insert(0, str(ROOT / "docs"))
EVIL = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1> \u202e turned"


def sound() -> bytes:
    import numpy as np
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.sin(np.arange(4000) / 9).astype("float32"), 8000, format="WAV", subtype="PCM_16")
    return out.getvalue()


def image(shade: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 80, 120)).save(out, "PNG")
    return out.getvalue()


def make(directory: Path) -> Corpus:
    """A corpus of every kind of record, written file by file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory.mkdir()
    records = [
        Record(f"notes/{n}", "notes", text=f"The note number {n} is here.", label=f"l{n % 2}") for n in range(90)
    ]
    records.append(Record("notes/evil", "notes", text=EVIL, label=EVIL, meta={EVIL: EVIL, "language": "en"}))
    turns = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": EVIL}]
    records.append(Record("talks/0", "talks", messages=turns, chosen=None, meta={"language": "zh"}))
    pairs = [{"role": "user", "content": "Which?"}]
    records.append(Record("pairs/0", "pairs", messages=pairs, chosen="The better one.", rejected="The worse one."))
    write_records(directory, "train", records)
    write_records(directory, "validation", [Record(f"pictures/{n}", "pictures", image=image(n)) for n in range(3)])
    write_records(directory, "test", [Record("sounds/0", "sounds", audio=sound())])
    kept = [*(record.id for record in records), *(f"pictures/{n}" for n in range(3)), "sounds/0"]
    fates = [{"id": id, "fate": "kept", "detail": ""} for id in kept]
    fates.append({"id": "notes/copy", "fate": "duplicate", "detail": "notes/3"})
    fates.append({"id": "notes/short", "fate": "filtered:too_short", "detail": "2"})
    pq.write_table(pa.Table.from_pylist(fates), directory / "fates.parquet")
    dropped = [{"id": "notes/short", "fate": "filtered:too_short", "detail": "2", "text": f"Too short {EVIL}"}]
    pq.write_table(pa.Table.from_pylist(dropped), directory / "dropped.parquet")
    changed = [{"id": "notes/4", "step": "0:normalise", "before": "The  note", "after": "The note"}]
    pq.write_table(pa.Table.from_pylist(changed), directory / "changed.parquet")
    counts = {"kept": len(kept), "duplicate": 1, "filtered:too_short": 1}
    (directory / "fates.json").write_text(json.dumps({"total": len(fates), "counts": counts}))
    split = {
        "labels": {"l0": 45, "l1": 45, EVIL: 1},
        "languages": {"en": 1, "zh": 1},
        "sources": {"notes": 91, "talks": 1},
    }
    statistics = {"splits": {"train": split}, "steps": [{"number": 0, "step": "normalise"}]}
    (directory / "statistics.json").write_text(json.dumps(statistics))
    (directory / "secret.txt").write_text("not to be read")
    return Corpus(directory, "corpus/notes@v1")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The page over the corpus, in a process of its own."""
    directory = tmp_path_factory.mktemp("browse") / "corpus"
    make(directory)
    code = (
        "import sys; from pathlib import Path; from wuxing.console.server import serve_corpus; "
        "serve_corpus(Path(sys.argv[1]), 'corpus/notes@v1', 0, lambda url: print(url, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found
    try:
        yield int(found[1])
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


# ------------------------------------------------------------------------------------------------ over HTTP
def test_it_answers_this_machine_only_and_changes_nothing(port: int) -> None:
    assert get(port, "/")[0] == 200
    assert get(port, "/api/overview", Host="evil.example")[0] == 421
    assert get(port, "/", Host="127.0.0.1.evil.example")[0] == 421
    assert get(port, "/api/records", Sec_Fetch_Site="cross-site")[0] == 403
    assert get(port, "/media?place=train:0", Sec_Fetch_Site="same-site")[0] == 403
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(port, "/api/records", method)[0] == 405
    assert get(port, "/", Host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2f..%2fserver.py",
        "/secret.txt",
        "/report/en",
        "/report/..%2fsecret.txt",
        "/media?place=secret.txt:0",
        "/media?place=../corpus/train:0",
        "/media?place=train:0",
        "/api/record?id=../secret.txt",
        "/api/record",
    ],
)
def test_nothing_but_the_records_is_given_out(port: int, path: str) -> None:
    status, _, body = get(port, path)
    assert status == 404 and b"not to be read" not in body and b"Traceback" not in body


def test_every_answer_carries_the_safety_headers(port: int) -> None:
    for path in ("/", "/page/browse.js", "/api/overview", "/api/record?id=none", "/media?place=validation:0"):
        _, headers, _ = get(port, path)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers and headers["x-frame-options"] == "DENY"


def test_media_have_their_own_type_and_ranges(port: int) -> None:
    status, headers, body = get(port, "/media?place=validation:1")
    assert (status, headers["content-type"]) == (200, "image/png") and body == image(1)
    status, headers, body = get(port, "/media?place=test:0", Range="bytes=4-11")
    assert (status, body) == (206, sound()[4:12]) and headers["content-range"] == f"bytes 4-11/{len(sound())}"
    assert get(port, "/media?place=test:0", Range="bytes=999999-")[0] == 416
    assert get(port, "/media?place=test:0", Range="bytes=a-b,c")[0] == 200


def test_mistakes_are_one_line(port: int) -> None:
    for path in ("/api/records?view=none", "/api/records?cursor=x", "/api/records?fate=none"):
        status, _, body = get(port, path)
        assert status == 400 and set(json.loads(body)) == {"error", "remedy"}
    assert json.loads(get(port, "/api/records?min_length=x&max_length=99999999999999")[2])["entries"]


def test_records_come_in_pages(port: int) -> None:
    found, cursor = [], ""
    while True:
        page = json.loads(get(port, f"/api/records?view=train&cursor={cursor}")[2])
        found += [entry["id"] for entry in page["entries"]]
        assert len(page["entries"]) <= 40
        if page["next"] is None:
            break
        cursor = page["next"]
    assert len(found) == len(set(found)) == 93
    thumbs = json.loads(get(port, "/api/records?view=validation")[2])["entries"]
    assert all(entry["thumb"].startswith("data:image/") for entry in thumbs) and len(thumbs) == 3


def test_both_languages_have_the_same_words_and_nothing_is_inline() -> None:
    english, chinese = (PAGE / "words.js").read_text().split("  zh: {")
    keys = [re.findall(r"^    (\w+):", part, re.M) for part in (english, chinese)]
    assert keys[0] == keys[1] and len(keys[0]) > 40
    html, script = (PAGE / "browse.html").read_text(), (PAGE / "browse.js").read_text()
    used = set(re.findall(r'data-(?:word|label)="(\w+)"', html)) | set(re.findall(r'say\("(\w+)"', script))
    assert used <= set(keys[0])
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|https?://", script + html
    )
    assert not re.search(r"\son\w+=|<script(?! type=\"module\" src=)|<style|\sstyle=", html)


# --------------------------------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if os.environ.get("WUXING_SKIP_BROWSER"):
        pytest.skip("WUXING_SKIP_BROWSER is set")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.fail("the page's tests need a browser: apt-get install chromium chromium-driver")
    from screenshots import open_browser

    browser = open_browser(str(tmp_path_factory.mktemp("profile")), 1100, 800)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def page(browser: Any, port: int) -> Any:
    """The page, fresh and in English."""
    browser.get(f"http://127.0.0.1:{port}/")
    browser.execute_script("localStorage.setItem('wuxing.language', 'en')")
    browser.refresh()
    until(browser, lambda: rows(browser))
    return browser


def until(browser: Any, condition: Callable[[], Any], seconds: float = 15) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, seconds, poll_frequency=0.02, ignored_exceptions=[StaleElementReferenceException])
    wait.until(lambda _: condition())


def rows(browser: Any) -> list[str]:
    return [e.text for e in browser.find_elements("css selector", "#list .open")]


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def view(browser: Any, name: str) -> None:
    find(browser, f"[data-view={name}]").click()


def choose(browser: Any, id: str, value: str) -> None:
    """Set a filter as a person would."""
    script = "const [id, value] = arguments, field = document.getElementById(id); field.value = value;"
    browser.execute_script(script + "field.dispatchEvent(new Event('input', {bubbles: true}))", id, value)


@pytest.mark.browser
def test_filter_page_search_and_open(page: Any) -> None:
    assert find(page, "#corpus").text == "corpus/notes@v1" and len(rows(page)) == 40
    find(page, "#next").click()
    until(page, lambda: rows(page)[0] == "notes/40")
    assert find(page, "#state").text == "Records 41–80"
    find(page, "#back").click()
    until(page, lambda: rows(page)[0] == "notes/0")
    find(page, "#grep").send_keys("NUMBER 7")
    until(page, lambda: rows(page) == ["notes/7", *(f"notes/7{n}" for n in range(10))])
    assert find(page, "#list mark").text == "number 7"
    find(page, "#clear").click()
    until(page, lambda: len(rows(page)) == 40)
    choose(page, "label", "l1")
    until(page, lambda: rows(page)[:2] == ["notes/1", "notes/3"])
    page.find_elements("css selector", "#list .open")[1].click()
    until(page, lambda: "duplicate" in find(page, "#content").text)
    assert "The note number 3 is here." in find(page, "#content").text
    find(page, "#content li button").click()  # its twin
    until(page, lambda: find(page, "#record-id").text == "notes/copy")
    until(page, lambda: "was not kept" in find(page, "#content").text)
    find(page, "#close").click()


@pytest.mark.browser
def test_dropped_changed_and_fates(page: Any) -> None:
    view(page, "dropped")
    until(page, lambda: rows(page) == ["notes/short"])
    view(page, "all")
    until(page, lambda: len(rows(page)) == 40)
    choose(page, "fate", "duplicate")
    until(page, lambda: rows(page) == ["notes/copy"])
    view(page, "changed")
    until(page, lambda: rows(page) == ["notes/4"])
    find(page, "#list .open").click()
    until(page, lambda: "changed by 0:normalise" in find(page, "#content").text)
    find(page, "#close").click()


@pytest.mark.browser
def test_pictures_are_shown_and_sounds_play(page: Any) -> None:
    view(page, "validation")
    until(page, lambda: len(page.find_elements("css selector", "#list img")) == 3)
    find(page, "#list .open").click()
    until(page, lambda: page.execute_script("return document.querySelector('#content img')?.naturalWidth") == 40)
    find(page, "#close").click()
    view(page, "test")
    until(page, lambda: rows(page) == ["sounds/0"])
    page.execute_script("window.a=document.querySelector('#list audio'); a.muted=true; a.play()")
    until(page, lambda: page.execute_script("return window.a.duration") == pytest.approx(0.5))


@pytest.mark.browser
def test_hostile_records_stay_text_and_the_language_changes(page: Any) -> None:
    choose(page, "grep", "onerror")
    until(page, lambda: len(rows(page)) == 2)
    find(page, "#list .open").click()
    until(page, lambda: "window.hurt" in find(page, "#content").text)
    assert "⟨U+202E⟩" in find(page, "#content").text
    assert page.execute_script("return window.hurt") is None
    assert not page.find_elements("css selector", "#list img, #content img, #content script")
    find(page, "#close").click()
    find(page, "#language").click()
    assert find(page, "html").get_attribute("lang") == "zh-CN" and "保留" in find(page, "#views").text
    view(page, "train")
    until(page, lambda: "第 1–" in find(page, "#state").text)
    problems = [line for line in page.get_log("browser") if line["level"] == "SEVERE"]
    assert problems == []
