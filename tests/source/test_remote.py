"""Files behind HTTP and in stores: listed, downloaded with resume, checked, kept; servers that misbehave."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import fsspec
import pytest
from local_server import Handler, Site, cut_after, serving, short_length, stall_after, status

from wuxing.core.context import Context
from wuxing.core.error import UsageError, WuxingError
from wuxing.core.record import Drop
from wuxing.source import download, open_source, rows_in, source_digest
from wuxing.source.config import SourceConfig

LINES = b"".join(b'{"text": "%d"}\n' % (n * n) for n in range(40_000))


def first(count: int) -> bytes:
    """The first lines."""
    return b"".join(LINES.splitlines(keepends=True)[:count])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "FIRST_PAUSE_SECONDS", 0.001)
    with serving() as running:
        yield running


def texts(files: str, home: Path, **more: object) -> list[str]:
    source = SourceConfig.model_validate({"files": files, **more})
    rows = list(rows_in(source, Context(home=home)))
    assert not [row.value for row in rows if isinstance(row.value, Drop)]
    return [row.value["text"] for row in rows]


WHOLE = [json.loads(line)["text"] for line in LINES.splitlines()]


def test_a_file_a_packed_file_and_a_pattern(site: Site, tmp_path: Path) -> None:
    site.files = {"/d/a.jsonl": LINES, "/d/b.jsonl.gz": gzip.compress(first(10)), "/d/deep/c.jsonl": b'{"text": "c"}'}
    site.files["/other/x.jsonl"] = b'{"text": "x"}'
    assert texts(f"{site.url}/d/a.jsonl", tmp_path) == WHOLE
    assert texts(f"{site.url}/d/*.gz", tmp_path) == WHOLE[:10]
    assert texts(f"{site.url}/d/deep/", tmp_path) == ["c"]
    found = open_source(SourceConfig(files=f"{site.url}/d/**"), Context(home=tmp_path))
    assert list(found.card["files"]) == ["a.jsonl", "b.jsonl.gz", "deep/c.jsonl"]


def test_listing_downloads_nothing_and_a_second_read_asks_for_nothing(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    source, context = SourceConfig(files=f"{site.url}/a.jsonl"), Context(home=tmp_path)
    origin = open_source(source, context)
    assert site.asked("/a.jsonl") == [] and origin.card["files"] == {"a.jsonl": len(LINES)}
    for _ in range(3):
        assert len(list(rows_in(source, context))) == len(WHOLE)
    assert len(site.asked("/a.jsonl")) == 1


@pytest.mark.parametrize("at", [1, 1000, len(LINES) - 1])
def test_a_broken_download_goes_on_where_it_broke(site: Site, tmp_path: Path, at: int) -> None:
    site.files["/a.jsonl"] = LINES
    site.faults["/a.jsonl"] = [cut_after(at), cut_after(0)]
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE
    assert site.asked("/a.jsonl") == ["", f"bytes={at}-", f"bytes={at}-"]


def test_many_breaks_do_not_end_a_download_that_moves(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    site.faults["/a.jsonl"] = [cut_after(20_000) for _ in range(20)]
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE


def test_a_silent_server_is_left_and_asked_again(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    site.faults["/a.jsonl"] = [stall_after(5000, 600.0)]  # longer than any test may take
    assert texts(f"{site.url}/a.jsonl", tmp_path, timeout_seconds=1) == WHOLE
    assert site.asked("/a.jsonl")[1] == "bytes=5000-"


def test_a_server_that_stays_broken_is_named_and_the_part_stays(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    site.faults["/a.jsonl"] = [cut_after(1000), *[status(503)] * 5]
    with pytest.raises(WuxingError, match="answers 503.*is gone on with"):
        texts(f"{site.url}/a.jsonl", tmp_path)
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE
    assert site.asked("/a.jsonl")[-1] == "bytes=1000-"


def test_too_few_bytes_are_never_taken_for_the_file(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    site.faults["/a.jsonl"] = [short_length(77)]
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE
    site.files["/b.jsonl"] = LINES
    site.faults["/b.jsonl"] = [short_length(77)] * 50
    site.ranges = False
    with pytest.raises(WuxingError, match="bytes came"):
        texts(f"{site.url}/b.jsonl", tmp_path)


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"], site.ranges = LINES, False
    site.faults["/a.jsonl"] = [cut_after(5000)]
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE


def test_what_changes_half_way_is_never_mixed(site: Site, tmp_path: Path) -> None:
    old, new = LINES, LINES.replace(b"1", b"2")
    site.files["/a.jsonl"] = old

    def swap(handler: Handler, content: bytes) -> bool:
        cut_after(5000)(handler, content)
        site.files["/a.jsonl"] = new
        return True

    site.faults["/a.jsonl"] = [swap]
    with pytest.raises(WuxingError, match=r"changed since it was listed|cannot be read"):
        texts(f"{site.url}/a.jsonl", tmp_path)
    assert texts(f"{site.url}/a.jsonl", tmp_path) == [json.loads(line)["text"] for line in new.splitlines()]


def test_another_content_is_another_version(site: Site, tmp_path: Path) -> None:
    source, context = SourceConfig(files=f"{site.url}/d/*.jsonl"), Context(home=tmp_path)
    site.files["/d/a.jsonl"] = b'{"text": "1"}'
    before = source_digest(source, context)
    assert before == source_digest(source, context)
    site.files["/d/a.jsonl"] = b'{"text": "2"}'
    second = source_digest(source, context)
    site.files["/d/b.jsonl"] = b'{"text": "2"}'
    assert len({before, second, source_digest(source, context)}) == 3
    assert texts(f"{site.url}/d/*.jsonl", tmp_path) == ["2", "2"]


def test_a_server_that_says_no_version_and_one_without_head(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"], site.tags, site.head_allowed = LINES, False, False
    source, context = SourceConfig(files=f"{site.url}/a.jsonl"), Context(home=tmp_path)
    before = source_digest(source, context)
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE
    site.files["/a.jsonl"] = LINES[:-1] + b" "
    assert source_digest(source, context) != before


def test_redirects_are_followed_and_a_circle_is_named(site: Site, tmp_path: Path) -> None:
    site.files["/real.jsonl"] = first(1)
    site.redirects = {"/a.jsonl": "/b.jsonl", "/b.jsonl": "/real.jsonl", "/x.jsonl": "/y.jsonl", "/y.jsonl": "/x.jsonl"}
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE[:1]
    with pytest.raises(WuxingError, match="redirect"):
        texts(f"{site.url}/x.jsonl", tmp_path)


def test_what_is_not_there_is_said_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match="answers 404"):
        texts(f"{site.url}/none.jsonl", tmp_path)
    assert len(site.log) == 1
    with pytest.raises(WuxingError, match="cannot be read"):
        texts("http://127.0.0.1:9/none.jsonl", tmp_path)


def test_a_kept_file_that_was_spoilt_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    texts(f"{site.url}/a.jsonl", tmp_path)
    [kept] = tmp_path.rglob("content")
    kept.write_bytes(LINES[::-1])
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE and len(site.asked("/a.jsonl")) == 2


def test_two_processes_share_one_download(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    code = (
        "import sys; from pathlib import Path; from wuxing.core.context import Context;"
        "from wuxing.source import rows_in; from wuxing.source.config import SourceConfig;"
        "print(len(list(rows_in(SourceConfig(files=sys.argv[1]), Context(home=Path(sys.argv[2]))))))"
    )
    command = [sys.executable, "-c", code, f"{site.url}/a.jsonl", str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert {process.communicate()[0].strip() for process in running} == {str(len(WHOLE)).encode()}
    assert len(site.asked("/a.jsonl")) == 1


def test_members_of_an_archive_elsewhere(site: Site, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/a.jsonl", first(10))
        archive.writestr("in/b.txt", "no")
    site.files["/x.zip"] = packed.getvalue()
    assert texts(f"zip://in/*.jsonl::{site.url}/x.zip", tmp_path) == WHOLE[:10]
    with pytest.raises(WuxingError, match=r"has no member \*\.csv"):
        texts(f"zip://*.csv::{site.url}/x.zip", tmp_path)


def test_secrets_stay_in_the_environment(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no password may stand in it"):
        SourceConfig(files="https://me:secret@host/a.jsonl")
    site.files["/a.jsonl"] = first(1)
    source, context = SourceConfig(files=site.url + "/a.jsonl?token=${DATA_TOKEN}"), Context(home=tmp_path)
    with pytest.raises(WuxingError, match="the environment has no DATA_TOKEN"):
        open_source(source, context)
    monkeypatch.setenv("DATA_TOKEN", "hush-4711")
    assert [row.value["text"] for row in rows_in(source, context)] == WHOLE[:1]
    assert "hush" not in str(open_source(source, context).card)
    site.faults["/a.jsonl"] = [status(500)] * 9
    for path in tmp_path.rglob("content"):
        path.unlink()
    with pytest.raises(WuxingError) as error:
        list(rows_in(source, context))
    assert "hush" not in str(error.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hush" in p.read_bytes()]


def test_a_login_comes_from_netrc(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(handler: Handler) -> bool:
        if handler.headers.get("Authorization") != "Basic bWU6aHVzaA==":
            handler.say(401, {"WWW-Authenticate": "Basic"})
            return True
        return False

    site.files["/a.jsonl"], site.extra = first(1), guarded
    with pytest.raises(WuxingError, match="Put a login into ~/.netrc"):
        texts(f"{site.url}/a.jsonl", tmp_path)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE[:1]


def test_any_store_that_fsspec_knows(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/store/a/x.jsonl": first(2), "/store/b.jsonl": first(1)})
    assert texts("memory://store/**/*.jsonl", tmp_path) == WHOLE[:2] + WHOLE[:1]
    assert texts("memory://store/b.jsonl", tmp_path) == WHOLE[:1]
    with pytest.raises(WuxingError, match="holds no file"):
        texts("memory://store/*.csv", tmp_path)
    with pytest.raises(UsageError, match="nonsense"):
        texts("nonsense://store/b.jsonl", tmp_path)


def s3(site: Site) -> None:
    """The part of S3's protocol that reading needs (ListObjectsV2, HeadObject, GetObject), signatures not checked."""

    def answer(handler: Handler) -> bool:
        asked, path = handler.query(), handler.path.partition("?")[0].lstrip("/")
        bucket, _, key = path.partition("/")
        if "list-type" not in asked:
            content = site.files.get(f"/{bucket}/{key}")
            if content is None:
                handler.say(404, {})
            elif (start := handler.headers.get("Range")) and handler.command == "GET":
                begin, last = (int(n) for n in start.removeprefix("bytes=").split("-"))
                last = min(last, len(content) - 1)
                tag = hashlib.md5(content).hexdigest()
                said = {"ETag": f'"{tag}"', "Content-Range": f"bytes {begin}-{last}/{len(content)}"}
                handler.say(206, said, content[begin : last + 1])
            else:
                handler.send(content, handler.command == "GET")
            return True
        prefix = asked.get("prefix", "")
        names = sorted(p[len(bucket) + 2 :] for p in site.files if p.startswith(f"/{bucket}/{prefix}"))
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(site.files[f'/{bucket}/{name}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag></Contents>"
            for name in names
        )
        head = f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(names)}</KeyCount>"
        page = f"<ListBucketResult>{head}<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        handler.say(200, {"Content-Type": "application/xml"}, page.encode())
        return True

    site.extra = answer


def test_s3(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3(site)
    big = LINES * 20
    site.files = {"/bucket/set/a.jsonl": big, "/bucket/set/b.jsonl": first(2), "/bucket/other.jsonl": first(1)}
    for name, value in (("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "hush-4711"), ("ENDPOINT_URL", site.url)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    address = "s3://bucket/set/*.jsonl?region=us-east-1"
    assert len(big) > 8 << 20  # more than one block
    assert texts(address, tmp_path) == WHOLE * 20 + WHOLE[:2]
    context = Context(home=tmp_path)
    origin = open_source(SourceConfig(files=address), context)
    assert origin.card["versions"]["b.jsonl"].strip('"') == hashlib.md5(first(2)).hexdigest()
    before = source_digest(SourceConfig(files=address), context)
    site.files["/bucket/set/b.jsonl"] = first(1) + first(1)
    assert source_digest(SourceConfig(files=address), context) != before
    assert texts("s3://bucket/other.jsonl?region=us-east-1", tmp_path) == WHOLE[:1]
    with pytest.raises(WuxingError, match="S3 address has region"):
        texts("s3://bucket/a.jsonl?regoin=x", tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hush" in p.read_bytes()]


def test_a_kill_at_any_instant_costs_only_what_was_not_written(site: Site, tmp_path: Path) -> None:
    site.files["/a.jsonl"] = LINES
    site.faults["/a.jsonl"] = [stall_after(count, 5.0) for count in (3000, 70_000, 200_000)]
    code = (
        "import sys; from pathlib import Path; from wuxing.core.context import Context;"
        "from wuxing.source import rows_in; from wuxing.source.config import SourceConfig;"
        "list(rows_in(SourceConfig(files=sys.argv[1]), Context(home=Path(sys.argv[2]))))"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, f"{site.url}/a.jsonl", str(tmp_path)])
        wanted = len(site.asked("/a.jsonl")) + 1
        end = time.monotonic() + 20
        while len(site.asked("/a.jsonl")) < wanted and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(random.Random(wanted).uniform(0.05, 0.2))
        process.kill()
        process.wait()
    assert texts(f"{site.url}/a.jsonl", tmp_path) == WHOLE
    assert not list(tmp_path.rglob("part"))


def test_a_password_in_a_recipe_is_not_repeated_to_the_user(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    steps = 'c: {make: corpus, sources: [{files: "https://me:hush-4711@host/x"}], split: {validation: 0.1, test: 0.1}}'
    recipe.write_text(f"name: r\nseed: 1\nsteps:\n  {steps}\n")
    command = [sys.executable, "-m", "wuxing", "plan", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "no password may stand in it" in done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_files_that_a_table_elsewhere_names_are_fetched_beside_it(site: Site, tmp_path: Path) -> None:
    site.files = {
        "/set/tables/list.csv": b"file_name,label\n../pictures/a b.png,cat\n../../../secret.png,dog\nnone.png,cow\n",
        "/set/pictures/a b.png": b"\x89PNG here",
        "/secret.png": b"\x89PNG secret",
    }
    fsspec.filesystem("memory").pipe(
        {"/shelf/tables/list.csv": site.files["/set/tables/list.csv"], "/shelf/pictures/a b.png": b"\x89PNG here"}
    )
    for files in (f"{site.url}/set/**/*.csv", "memory://shelf/**/*.csv"):
        rows = list(rows_in(SourceConfig(files=files), Context(home=tmp_path)))
        assert rows[0].value["file_name"] == b"\x89PNG here" and rows[0].value["label"] == "cat"
        assert [row.unreadable.reason for row in rows[1:] if row.unreadable] == ["missing_file"] * 2
    site.faults["/set/pictures/a b.png"] = [status(500)] * 9
    for path in tmp_path.rglob("content"):
        path.unlink()
    with pytest.raises(WuxingError, match="answers 500"):
        list(rows_in(SourceConfig(files=f"{site.url}/set/**/*.csv"), Context(home=tmp_path)))
