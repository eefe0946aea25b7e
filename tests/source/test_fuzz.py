"""Attacks on every reader: cut anywhere, flipped, random, bombs, walls, giants.  No crash, no hang, no lost row.

What may hang or eat the machine runs in a process of its own whose time and peak memory are measured.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import sample_files as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from wuxing.core.record import Drop, Record
from wuxing.source.blob import MemoryBlob
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper
from wuxing.source.format import SUFFIXES, parts_of, read_part
from wuxing.source.row import Row

FILES = samples.files()
INSIDE = sorted(set(SUFFIXES.values()) - {"pdf"})
"""Formats that are read in this process; PDF is attacked below, with its process."""
SUFFIX_OF = {kind: suffix for suffix, kind in SUFFIXES.items()}


def read(name: str, content: bytes, **given: Any) -> list[Row]:
    """The rows, each of which gives a record or a reason that a file can keep, at a place of its own."""
    source = SourceConfig.model_validate({"files": "f", **given})
    mapper = Mapper(source)
    found = [row for part in parts_of([MemoryBlob(name, content)], source) for row in read_part(part, source)]
    for row in found:
        made = mapper.record(row)
        assert isinstance(made, Record | Drop)
        (made.reason + made.detail if isinstance(made, Drop) else (made.text or "")).encode("utf-8", "surrogatepass")
    assert len({row.place for row in found}) == len(found)
    return found


def shown(row: Row) -> str:
    return row.value.reason if isinstance(row.value, Drop) else str(row.value.get("text", row.value))


# ---------------------------------------------------------------------------------------------------- any bytes
@given(st.binary(max_size=400), st.sampled_from(INSIDE), st.sampled_from(["", ".gz", ".zst", ".bz2", ".xz"]))
@settings(deadline=None, max_examples=400)
def test_random_bytes(raw: bytes, kind: str, packing: str) -> None:
    read(f"f{SUFFIX_OF[kind]}{packing}", raw)


@given(st.data(), st.sampled_from([name for name in FILES if name != "a.pdf"]), st.sampled_from(["", ".gz", ".zst"]))
@settings(deadline=None, max_examples=500)
def test_cut_anywhere(data: st.DataObject, name: str, packing: str) -> None:
    """What was whole before the cut stays, and the cut is said, unless nothing shows that something is missing."""
    content = samples.PACKERS[packing](FILES[name][0])
    cut = data.draw(st.integers(0, len(content) - 1))
    found = [shown(row) for row in read(f"{name}{packing}", content[:cut])]
    if not found:  # the names of the columns alone, with or without their line's end, are no row
        header = FILES[name][0].split(b"\n")[0] + b"\n"
        assert name in ("a.csv", "a.tsv") and cut <= len(header), "a file has left no trace"
        return
    truth = [shown(row) for row in read(f"{name}{packing}", content)]
    streams = ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.warc", "a.mbox", "a.tar")
    kept = [text for text in found if text in truth]
    if name in streams:
        assert kept == truth[: len(kept)]
        assert len(found) <= len(kept) + 2  # the row that was cut, and for archives the archive
    if packing == ".gz":
        assert found[-1] in ("broken_file", "empty_file", "broken_record", "unknown_format") or found[-1] not in truth


@given(st.data(), st.sampled_from([name for name in FILES if name != "a.pdf"]), st.sampled_from(["", ".gz"]))
@settings(deadline=None, max_examples=500)
def test_flipped_bytes(data: st.DataObject, name: str, packing: str) -> None:
    content = bytearray(samples.PACKERS[packing](FILES[name][0]))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert read(f"{name}{packing}", bytes(content))


def test_pdfs_cut_flipped_and_random() -> None:
    draw = random.Random(5)
    whole = samples.pdf(samples.SENTENCES[:2])
    for number in range(60):
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 20)):
            content[draw.randrange(9, len(content))] = draw.randrange(256)
        attacked = bytes(content[: draw.randrange(9, len(content))] if number % 2 else content)
        assert len(read("a.pdf", attacked)) == 1
    assert shown(read("a.pdf", whole)[0]).startswith("The river")  # the process that survived still answers


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=40), st.integers(1, 90))
@settings(deadline=None, max_examples=150)
def test_lines_are_counted_against_a_slow_truth(lines: list[bytes], block: int) -> None:
    """Whatever lines hold and however they come in blocks: each that is not blank has one row, at its number."""
    from wuxing.source import stream

    before, stream.BLOCK_BYTES = stream.BLOCK_BYTES, block
    try:
        lines = [b'{"text": "first"}', *lines]
        found = read("f.jsonl", b"\n".join(lines))
    finally:
        stream.BLOCK_BYTES = before
    truth = [f"f.jsonl#{number}" for number, line in enumerate(lines) if line.strip()]
    if not any(line.startswith((b"\xff\xfe", b"\xfe\xff")) for line in lines[:1]):
        assert [row.place for row in found] == truth


@given(st.text(alphabet='ab,"\n\r\t;é中', max_size=120), st.integers(20, 200))
@settings(deadline=None, max_examples=300)
def test_every_line_of_a_csv_is_in_a_row_or_has_a_reason(text: str, limit: int) -> None:
    """Letters that stand in the file stand in a row, or in a line that has a reason."""
    found = read(
        "f.csv", ("h1,h2\n" + text).encode(), delimiter=",", header=["x", "y"], limits={"line_bytes": 64 + limit}
    )
    kept = sum(str(value).count("a") for row in found if isinstance(row.value, dict) for value in row.value.values())
    assert kept == text.count("a") or any(isinstance(row.value, Drop) for row in found)


# ---------------------------------------------------------------------------------------------------- few and many
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_no_bytes_has_one_fate(name: str) -> None:
    assert [row.value.reason for row in read(name, b"")] == ["empty_file"]
    assert [row.value.reason for row in read(name + ".gz", gzip.compress(b""))] == ["empty_file"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b"\n\n"),
        ("a.json", b"[]"),
        ("a.csv", b"text,n\n"),
        ("a.parquet", samples.parquet([])),
        ("a.arrow", samples.arrow([])),
        ("a.zip", samples.zipped({})),
        ("a.tar", samples.tarred({})),
        ("a.yaml", b"[]"),
    ],
)
def test_no_row_is_no_row(name: str, content: bytes) -> None:
    assert read(name, content) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow", "a.yaml", "a.warc", "a.mbox"])
def test_one_row_is_one_row(name: str) -> None:
    text = samples.SENTENCES[0]
    rows = [{"text": text, "n": "1"}]
    content = {
        "a.jsonl": json.dumps(rows[0]).encode(),
        "a.json": json.dumps(rows).encode(),
        "a.csv": f'text,n\n"{text}",1'.encode(),
        "a.parquet": samples.parquet(rows),
        "a.arrow": samples.arrow(rows),
        "a.yaml": json.dumps(rows).encode(),
        "a.warc": samples.warc_record(0, samples.html(text)),
        "a.mbox": samples.mbox([text]),
    }[name]
    assert [shown(row).strip() for row in read(name, content)] == [text]


MEASURED = """
import resource, sys, time
from wuxing.source import rows_in
from wuxing.source.config import SourceConfig
from wuxing.core.context import Context
from wuxing.core.record import Drop
from collections import Counter
import json
source = SourceConfig.model_validate(json.loads(sys.argv[1]))
fates, last = Counter(), None
for row in rows_in(source, Context()):
    fates[row.value.reason if isinstance(row.value, Drop) else "row"] += 1
print(json.dumps([fates, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]))
"""


def measured(path: Path, seconds: float, **settings: Any) -> tuple[dict[str, int], int]:
    """The fates of a source, and the peak memory in MiB of the process that read it within `seconds`."""
    source = json.dumps({"files": str(path), **settings})
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, source], capture_output=True, text=True, timeout=seconds, check=True
    )
    fates, peak = json.loads(done.stdout)
    return fates, peak


@pytest.fixture(scope="module")
def usual_peak(tmp_path_factory: pytest.TempPathFactory) -> int:
    """What the process needs for all the small files, its libraries with it."""
    room = tmp_path_factory.mktemp("usual")
    samples.write_all(room)
    return measured(room, 60)[1]


def test_a_million_empty_rows(tmp_path: Path, usual_peak: int) -> None:
    empty = b"\n" * 1_000_000
    (tmp_path / "lines.jsonl").write_bytes(empty)
    (tmp_path / "lines.csv").write_bytes(b"text,n\n" + empty)
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress(empty))
    fates, peak = measured(tmp_path, 60, per="line")
    assert fates == {}
    assert peak < usual_peak + 60
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.csv").write_bytes(b"text,n\n" + b",\n" * 200_000)
    fates, peak = measured(tmp_path / "rows", 60)
    assert fates == {"row": 200_000}
    assert peak < usual_peak + 60


def test_a_giant_line_is_passed_over(tmp_path: Path, usual_peak: int) -> None:
    """Two of 200 MiB, as holes in the file: only what the limit allows is ever held."""
    for name, start in (("a.jsonl", b'{"text": "'), ("b.csv", b'text,n\n1,"')):
        with open(tmp_path / name, "wb") as file:
            file.write(b'{"text": "before"}\n' if name == "a.jsonl" else b"text,n\nbefore,1\n")
            file.write(start)
            file.truncate(200 << 20)
            file.seek(0, 2)
            file.write(b'"}\n{"text": "after"}\n' if name == "a.jsonl" else b'"\nafter,1\n')
    fates, peak = measured(tmp_path, 60, limits={"line_bytes": 1 << 20})
    assert fates["line_too_long"] >= 1
    assert fates["row"] >= 3
    assert peak < usual_peak + 60


def gzip_bomb(mebibytes: int) -> bytes:
    """A member of the format's highest ratio."""
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", 9) as stream:
        for _ in range(mebibytes):
            stream.write(bytes(1 << 20))
    return buffer.getvalue()


def test_bombs_end_at_their_limits(tmp_path: Path, usual_peak: int) -> None:
    small = {"limits": {"free_bytes": 16 << 20, "document_bytes": 8 << 20, "line_bytes": 4 << 20}}
    bomb = gzip_bomb(60)
    for name in ("a.jsonl.gz", "b.txt.gz", "c.csv.gz", "d.html.gz", "e.warc.gz", "f.json.gz", "g.tar.gz", "h.eml.gz"):
        (tmp_path / name).write_bytes(bomb)
    with zipfile.ZipFile(tmp_path / "i.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}.jsonl", bytes(6 << 20))
    (tmp_path / "j.docx").write_bytes(samples.zipped({"word/document.xml": b"<p><t>" + b"a" * (30 << 20)}))
    (tmp_path / "k.jsonl.bz2").write_bytes(samples.PACKERS[".bz2"](bytes(40 << 20)))
    (tmp_path / "l.jsonl.zst").write_bytes(samples.zstd(bytes(60 << 20)))
    began = time.monotonic()
    fates, peak = measured(tmp_path, 100, **small)
    assert "row" not in fates
    assert sum(fates.values()) == 11 + 40
    assert set(fates) <= {"unpack_limit", "too_large", "line_too_long", "broken_json", "broken_record", "unsafe_xml"}
    assert fates["unpack_limit"] >= 38  # of the archive's members, what is left after two is not even begun
    assert peak < usual_peak + 150
    assert time.monotonic() - began < 60


def test_walls_of_brackets_tags_and_parts(usual_peak: int) -> None:
    deep = 100_000
    parts = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number) for number in range(2000)
    )
    walls = {
        "a.json": b"[" * deep,
        "b.json": b'{"a":' * deep,
        "c.jsonl": b"[" * deep,
        "d.yaml": b"[" * deep,
        "e.yaml": b"- " * deep,
        "f.yaml": b"".join(b" " * n + b"a:\n" for n in range(1500)),
        "g.html": b"<b><div>" * deep,
        "h.eml": b"From: a\r\nTo: b\r\nSubject: c\r\nMIME-Version: 1.0\r\n" + parts,
        "i.odt": samples.zipped({"mimetype": samples_type(), "content.xml": b"<p>" * deep}),
        "j.md": b"---\n" + b"[" * 60_000 + b"\n---\nbody",
        "k.yaml": b"? " * deep,
        "l.yaml": b"- - - ? - " * deep,
    }
    for name, content in walls.items():
        began = time.monotonic()
        found = read(name, content)
        assert time.monotonic() - began < 10, name
        assert name == "j.md" or all(isinstance(row.value, Drop) for row in found), name
        assert found, name


def samples_type() -> str:
    return "application/vnd.oasis.opendocument.text"


# ---------------------------------------------------------------------------------------------------- the guard
def hang(data: bytes) -> None:
    while True:
        pass


def eat(data: bytes) -> int:
    return len([bytes(1 << 20) for _ in range(100_000)])


def die(data: bytes) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)


def fail(data: bytes) -> None:
    raise LookupError("what is this")


def write(data: bytes) -> int:
    with tempfile.TemporaryFile() as file:
        return file.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("hang", "too_slow"),
        ("eat", "too_much_memory"),
        ("die", "crashed"),
        ("fail", "crashed"),
        ("write", "crashed"),
    ],
)
def test_a_reader_that_hangs_eats_or_dies_is_a_fate(
    function: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wuxing.source import guard

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    guard._end_all()
    began = time.monotonic()
    made = guard.read(f"test_fuzz:{function}", {}, b"x" * 1000, cpu_seconds=1, memory_bytes=1 << 30)
    assert isinstance(made, Drop)
    assert made.reason == reason
    assert time.monotonic() - began < 30
    guard._end_all()


def test_the_guarded_process_ends_with_its_parent() -> None:
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); import sample_files as s\n"
        "from wuxing.source import guard\n"
        "from wuxing.source.format.pdf import pages_of\n"
        "guard.read('wuxing.source.format.pdf:pages_of', {'most': 9}, s.pdf(['a']), 9, 1 << 30)\n"
        "print(next(iter(guard._CHILDREN.values())).process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True)
    child = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.05)
    raise AssertionError("the child outlives its parent")
