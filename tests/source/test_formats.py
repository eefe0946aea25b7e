"""Every format against what was put into it: names that are right, that say nothing, that lie; packed or not."""

from __future__ import annotations

import csv
import email
import email.policy
import gzip
import io
import json
import random
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sample_files as samples

from wuxing.core.context import Context
from wuxing.core.record import Drop, Record
from wuxing.source import open_source, rows_in
from wuxing.source.blob import MemoryBlob
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper
from wuxing.source.format import format_of, parts_of, read_part
from wuxing.source.row import Document, Row

FILES = samples.files()


def rows(name: str, content: bytes, **settings: Any) -> list[Row]:
    source = SourceConfig.model_validate({"files": "f", **settings})
    return [row for part in parts_of([MemoryBlob(name, content)], source) for row in read_part(part, source)]


def records(name: str, content: bytes, **settings: Any) -> list[Record | Drop]:
    mapper = Mapper(SourceConfig.model_validate({"files": "f", **settings}))
    return [mapper.record(row) for row in rows(name, content, **settings)]


def texts(name: str, content: bytes, **settings: Any) -> list[str]:
    found = records(name, content, **settings)
    return [made.text.strip() if isinstance(made, Record) and made.text else str(made) for made in found]


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("packing", samples.PACKERS)
@pytest.mark.parametrize("name", FILES)
def test_what_was_put_in_comes_out(name: str, packing: str) -> None:
    content, truth = FILES[name]
    found = texts(name + packing, samples.PACKERS[packing](content))
    assert [plain(text) for text in found] == [plain(text) for text in truth]


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("name", [name for name in FILES if name not in ("a.txt", "a.md", "a.yaml", "a.csv", "a.tsv")])
@pytest.mark.parametrize("shown", ["data", "data.txt"])
def test_bytes_win_over_names_that_say_nothing_or_lie(name: str, packing: str, shown: str) -> None:
    content, truth = FILES[name]
    if name == "a.zip" and packing:
        return
    if name == "a.json" and shown == "data.txt":
        content = content.replace(b"[", b"[\n")
        assert "river number 0" in texts(shown, content)[0]  # a text may well begin with a bracket
        return
    found = texts(shown, samples.PACKERS[packing](content))
    if name == "a.mbox" and shown == "data.txt":  # a mail that was saved as text has its first line too
        assert "river number 0" in found[0]
        return
    assert [plain(text) for text in found] == [plain(text) for text in truth]


def test_formats_are_counted_on_the_card(tmp_path: Path) -> None:
    samples.write_all(tmp_path / "d")
    (tmp_path / "d" / "lies.json").write_bytes(FILES["a.jsonl"][0])
    (tmp_path / "d" / "picture.xyz").write_bytes(b"\x01\x02\x03")
    card = open_source(SourceConfig(files=str(tmp_path / "d")), Context(home=tmp_path)).card
    said = {format_of(name) or "unknown" for name in FILES} | {"unknown"}
    assert set(card["formats"]) == said
    assert card["formats"]["jsonl"] == 2
    assert sum(card["formats"].values()) == len(card["files"]) == len(FILES) + 2


# ---------------------------------------------------------------------------------------------------- tables
def random_table(seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    pieces = ['"', ",", ";", "\n", "\r\n", "'", "a", "中文", " ", "\t", "|", "x" * 30]
    return [["".join(draw.choices(pieces, k=draw.randrange(6))) for _ in range(3)] for _ in range(60)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("seed", range(6))
def test_csv_equals_the_module_on_the_whole_text(seed: int, delimiter: str) -> None:
    table = [["id", "b", "c"], *([f"n{n}", *row[1:]] for n, row in enumerate(random_table(seed)))]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, lineterminator="\n" if seed % 2 else "\r\n").writerows(table)
    truth = list(csv.reader(io.StringIO(written.getvalue(), newline=""), delimiter=delimiter))
    assert truth == table
    found = rows("t.csv", ("\ufeff" if seed % 3 else "").encode() + written.getvalue().encode(), delimiter=delimiter)
    assert [list(row.value.values()) for row in found] == truth[1:]
    assert [row.place for row in found] == [f"t.csv#{n}" for n in range(len(truth) - 1)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz"])
def test_delimiter_and_quote_are_found(name: str, delimiter: str, quote: str) -> None:
    line = f"{quote}one{delimiter} two{quote}{delimiter}3\n"
    content = f"text{delimiter}n\n{line * 5}".encode()
    found = rows(name, gzip.compress(content) if name.endswith("gz") else content)
    assert [row.value for row in found] == [{"text": f"one{delimiter} two", "n": "3"}] * 5


def test_columns_without_names_get_them() -> None:
    assert [row.value for row in rows("t.csv", b"a,1\nb,2\n", header=["text", "label"])] == [
        {"text": "a", "label": "1"},
        {"text": "b", "label": "2"},
    ]


def test_a_quote_that_is_never_closed_costs_its_line() -> None:
    lines = ["a,b", "1,2", '3,"4', "5,6", '7,"8', "9,10"]
    found = [
        row.value.reason if isinstance(row.value, Drop) else row.value["a"]
        for row in rows("t.csv", "\n".join(lines).encode())
    ]
    assert found == ["1", "3", "9"]  # the two quotes close each other, as for the csv module
    lines.pop(4)
    found = [
        row.value.reason if isinstance(row.value, Drop) else row.value["a"]
        for row in rows("t.csv", "\n".join(lines).encode())
    ]
    assert found == ["1", "broken_csv", "5", "9"]


def test_many_open_quotes_end_soon_and_lose_no_line() -> None:
    content = b"a,b\n" + b'x,"y\nz,\n' * 20_001
    found = rows("t.csv", content, limits={"line_bytes": 1 << 16})
    assert all(isinstance(row.value, Drop | dict) for row in found)
    assert len(found) >= 10_000


def test_numbers_dates_and_words_stay_as_they_are_written() -> None:
    assert rows("t.csv", b"a,b,c\n007,1e5,NaN\n")[0].value == {"a": "007", "b": "1e5", "c": "NaN"}


def test_a_row_in_another_encoding_costs_itself() -> None:
    content = "text,n\n好,1\n".encode() + "坏,2\n".encode("gb18030") + "好,3\n".encode()
    found = [row.value.reason if isinstance(row.value, Drop) else row.value["n"] for row in rows("t.csv", content)]
    assert found == ["1", "wrong_encoding", "3"]
    whole = "文字,数\n春眠不觉晓处处闻啼鸟,1\n夜来风雨声花落知多少,2\n" * 20
    assert rows("t.csv", whole.encode("gb18030"))[0].value == {"文字": "春眠不觉晓处处闻啼鸟", "数": "1"}
    assert rows("t.jsonl", ('{"text": "好"}\n' * 3).encode("utf-16"))[2].value == {"text": "好"}


# ---------------------------------------------------------------------------------------------------- JSON, YAML
def test_a_list_that_breaks_keeps_what_stands_before() -> None:
    items = [{"text": f"{n} " * n} for n in range(50)]
    whole = json.dumps(items, indent=1).encode()
    for cut in range(2, len(whole) - 1, 37):
        found = [row.value for row in rows("t.json", whole[:cut])]
        *kept, last = found
        assert kept == items[: len(kept)]
        assert isinstance(last, Drop) or found == items
    assert [row.value for row in rows("t.json", whole)] == items


def test_big_lists_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from wuxing.source import stream

    items: list[Any] = [{"text": "x" * (n % 50), "n": [n, {"a": 1.5e3}]} for n in range(3000)] + [12345678901234567890]
    content = json.dumps(items, ensure_ascii=False).encode()
    for size in (7, 100, 5000):
        monkeypatch.setattr(stream, "BLOCK_BYTES", size)
        assert [row.value if n < 3000 else row.value["value"] for n, row in enumerate(rows("t.json", content))] == items


def test_names_that_stand_twice_are_no_silent_choice() -> None:
    line = b'{"text": "a", "text": "b"}\n{"text": "c"}\n'
    assert [getattr(row.value, "reason", None) for row in rows("t.jsonl", line)] == ["duplicate_keys", None]
    assert [row.value.reason for row in rows("t.json", b'[{"text": "a", "te\\u0078t": "b"}]')] == ["duplicate_keys"]
    assert [row.value.reason for row in rows("t.yaml", b"- text: a\n  text: b\n")] == ["duplicate_keys"]
    both = rows("t.json", b'{"k": {"text": "a"}, "k": {"text": "b"}}')
    assert [row.value["text"] for row in both] == ["a", "b"]


def test_large_numbers_keep_their_digits() -> None:
    assert (
        rows("t.jsonl", b'{"text": 123456789012345678901234567890}')[0].value["text"] == 123456789012345678901234567890
    )


def test_yaml_documents_one_after_the_other() -> None:
    found = rows("t.yaml", b"text: a\n---\ntext: b\n---\ntext: [\n")
    assert [getattr(row.value, "reason", None) or row.value["text"] for row in found] == ["a", "b", "broken_yaml"]


# ---------------------------------------------------------------------------------------------------- Hugging Face
def test_the_layout_of_hugging_face(tmp_path: Path) -> None:
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
    }
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    for number in range(2):
        table = pa.table({"text": [f"{number}a", f"{number}b"], "label": [1, 0]}, schema=schema)
        room = tmp_path / "d" / "train"
        room.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_stream(room / f"data-0000{number}-of-00002.arrow", schema) as writer:
            writer.write_table(table)
        (room / "state.json").write_text('{"_data_files": []}')
        (room / "dataset_info.json").write_text("{}")
        (tmp_path / "d" / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "d" / "data" / f"train-0000{number}-of-00002.parquet")
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    source = SourceConfig(files=str(tmp_path / "d"))
    mapper = Mapper(source)
    made = [mapper.record(row) for row in rows_in(source, Context(home=tmp_path))]
    truth = [("0a", "pos"), ("0b", "neg"), ("1a", "pos"), ("1b", "neg")] * 2
    assert [(record.text, record.label) for record in made if isinstance(record, Record)] == truth
    card = open_source(source, Context(home=tmp_path)).card
    assert card["formats"] == {"parquet": 2, "arrow": 2}
    assert card["left_out"] == ["dataset_dict.json", "train/dataset_info.json", "train/state.json"]


# ---------------------------------------------------------------------------------------------------- pages
@pytest.mark.parametrize("charset", ["utf-8", "gb18030", "big5", "utf-16"])
def test_pages_in_the_encodings_of_the_web(charset: str) -> None:
    text = "春天來了，院子裡的桃花開得正好，孩子們在樹下追逐嬉戲。" * 3
    [made] = records("p.html", samples.html(text, charset, "河流"))
    assert isinstance(made, Record)
    assert made.text and text in made.text
    assert made.meta["title"] == "河流"


def test_the_main_text_or_all_of_it() -> None:
    page = samples.html(samples.SENTENCES[0] + '<a href="http://x.example/z">more</a>')
    [main] = texts("p.html", page)
    assert "Imprint" not in main and "rights" not in main and "var x" not in main
    [all_of_it] = texts("p.html", page, html={"main_content": False, "links": True})
    assert "Imprint" in all_of_it and "rights" in all_of_it and "http://x.example/z" in all_of_it


def test_a_page_without_text_and_one_of_walls() -> None:
    assert [row.value.reason for row in rows("p.html", b"<html><body><img src=x></body></html>")] == ["no_main_text"]
    for walls in (b"<div>" * 50_000, b"<ul><li>a" * 50_000, (b"<div>" * 20_000) + b"x" + (b"</div>" * 20_000)):
        assert [row.value.reason for row in rows("p.html", walls)] == ["too_deep"]


def test_records_of_a_crawl_and_why_others_are_none() -> None:
    page = samples.html(samples.SENTENCES[0])
    content = [
        samples.warc_record(0, page),
        samples.warc_record(1, page, kind="request"),
        samples.warc_record(2, page, status=404),
        samples.warc_record(3, b"\x89PNG", mime="image/png"),
        samples.warc_record(4, "纯文本。".encode(), mime="text/plain"),
        b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: x\r\n\r\nwhat?\r\n\r\n",
        samples.warc_record(5, samples.html(samples.CHINESE * 3, "gb18030"), mime="text/html; charset=gb2312"),
    ]
    for whole in (b"".join(content), b"".join(map(gzip.compress, content)), gzip.compress(b"".join(content))):
        found = [
            row.value.reason if isinstance(row.value, Drop) else row.value["url"][-1] for row in rows("c.warc", whole)
        ]
        assert found == ["0", "http_status", "no_page", "4", "broken_record", "5"]
    assert rows("c.warc.gz", gzip.compress(content[0]))[0].value["date"] == "2024-01-02T03:04:05Z"


def test_a_damaged_record_of_a_packed_crawl_costs_itself() -> None:
    members = [gzip.compress(samples.warc_record(n, samples.html(text))) for n, text in enumerate(samples.SENTENCES)]
    damaged = bytearray(members[3])
    damaged[len(damaged) // 2] ^= 0xFF
    damaged[len(damaged) // 2 + 1] ^= 0xFF
    found = rows("c.warc.gz", b"".join([*members[:3], bytes(damaged), *members[4:]]))
    urls = [row.value["url"][-1] for row in found if isinstance(row.value, Document)]
    assert urls == ["0", "1", "2", "4", "5", "6", "7"]
    assert sum(isinstance(row.value, Drop) for row in found) == 1


# ---------------------------------------------------------------------------------------------------- documents
def test_pages_of_a_pdf_and_chapters_of_a_book() -> None:
    found = records("a.pdf", samples.pdf(samples.SENTENCES[:3]), per="page")
    assert [(made.text.strip(), made.meta["page"]) for made in found if isinstance(made, Record) and made.text] == [
        (text, n + 1) for n, text in enumerate(samples.SENTENCES[:3])
    ]
    book = records("a.epub", samples.epub(samples.SENTENCES[:3]), per="page")
    assert [made.meta for made in book if isinstance(made, Record)] == [{"title": "Rivers", "author": "A. Miller"}] * 3
    assert [row.value.reason for row in rows("a.pdf", samples.pdf(["a"] * 4), limits={"pages": 3})] == [
        "too_many_pages"
    ]
    assert [row.value.reason for row in rows("a.pdf", samples.pdf([""]))] == ["no_text_layer"]


def test_a_pdf_with_a_password_is_said() -> None:
    import hashlib

    sealed = samples.pdf(["secret"])
    key = hashlib.md5(b"x").hexdigest()
    encrypt = f"<< /Filter /Standard /V 1 /R 2 /O <{key * 2}> /U <{key * 2}> /P -4 >>"
    sealed = sealed.replace(b"/Root 1 0 R", f"/Root 1 0 R /Encrypt {encrypt} /ID [<00><00>]".encode())
    assert [row.value.reason for row in rows("a.pdf", sealed)] == ["encrypted"]


def test_a_document_s_tables_breaks_and_deleted_words() -> None:
    body = (
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr>"
        "</w:tbl><w:p><w:r><w:t>one</w:t><w:br/><w:t>two</w:t><w:tab/><w:t>three</w:t></w:r>"
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    )
    [made] = records("a.docx", samples.docx(["first"], body))
    assert isinstance(made, Record)
    assert made.text == "first\na\tb\none\ntwo\tthree"
    assert made.meta == {"title": "Rivers"}


def test_xml_that_declares_entities_is_not_read() -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    bomb = samples.zipped({"word/document.xml": laughs + "<document><p><t>&b;</t></p></document>"})
    assert [row.value.reason for row in rows("a.docx", bomb)] == ["unsafe_xml"]
    deep = samples.zipped({"word/document.xml": "<p>" * 100_000})
    assert [row.value.reason for row in rows("a.docx", deep)] == ["unsafe_xml"]


# ---------------------------------------------------------------------------------------------------- mails
def test_mails_with_alternatives_attachments_and_encodings() -> None:
    built = email.message.EmailMessage(policy=email.policy.SMTP)
    built["From"], built["To"], built["Subject"] = "张三 <z@x.example>", "b@x.example", "河流与孩子"
    built["Date"] = "Tue, 2 Jan 2024 03:04:05 +0800"
    built.set_content(samples.CHINESE, charset="gb18030", cte="base64")
    built.add_alternative(samples.html("something else").decode(), subtype="html")
    built.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="x.bin")
    [made] = records("a.eml", built.as_bytes())
    assert isinstance(made, Record)
    assert made.text and made.text.strip() == samples.CHINESE
    assert made.meta == {"subject": "河流与孩子", "date": "2024-01-02T03:04:05+08:00", "attachments": 1}
    [named] = records("a.eml", built.as_bytes(), mail={"headers": ["from"]})
    assert isinstance(named, Record)
    assert named.meta["from"] == "张三 <z@x.example>"


def test_quotes_and_signatures_may_go() -> None:
    text = "Yes.\n\nOn Monday, Ann wrote:\n> Really?\n> So?\n\nIndeed.\n-- \nBob\nTel. 1"
    assert texts("a.eml", samples.mail(text)) == [text]
    assert texts("a.eml", samples.mail(text), mail={"quotes": False, "signatures": False}) == ["Yes.\n\nIndeed."]


def test_an_mbox_equals_the_standard_library(tmp_path: Path) -> None:
    import mailbox

    bodies = ["a\n\nFrom here on we walk.\nFrom x", "b", "", samples.CHINESE, "\n\n\nFrom the sea\n\n"]
    box = mailbox.mbox(tmp_path / "box")
    for body in bodies:
        box.add(samples.mail(body).replace(b"\r\n", b"\n"))
    box.close()
    kept = [message.get_payload(decode=True).decode().strip() for message in mailbox.mbox(tmp_path / "box")]
    truth = [re.sub(r"^>(>*From )", r"\1", text, flags=re.MULTILINE) for text in kept]
    found = records("box.mbox", (tmp_path / "box").read_bytes())
    assert [made.text.strip() if isinstance(made, Record) and made.text else "" for made in found] == truth


def test_real_mails_against_the_standard_library(data_directory: Path) -> None:
    """Of 1,200 mails as they came, those of one plain part in a known encoding: every word of the library's text."""
    archive = data_directory / "messy" / "mails.tar.gz"
    source = SourceConfig(files=str(archive))
    found = {row.place.partition(".gz/")[2].partition("#")[0]: row.value for row in rows_in(source, Context())}
    compared = 0
    with tarfile.open(archive) as mails:
        names = [member for member in mails if member.isfile()]
        assert {member.name for member in names} == set(found)
        for member in names:
            file = mails.extractfile(member)
            assert file is not None
            message = email.message_from_bytes(file.read().partition(b"\n")[2], policy=email.policy.compat32)
            if message.is_multipart() or message.get_content_type() != "text/plain":
                continue
            try:
                charset = message.get_content_charset() or "ascii"
                truth = message.get_payload(decode=True).decode("cp1252" if charset == "iso-8859-1" else charset)
            except (LookupError, UnicodeDecodeError):
                continue
            value = found[member.name]
            if "<html" in truth[:200].lower() or not truth.strip():
                continue
            assert value["text"].split() == truth.split(), member.name
            compared += 1
    assert compared > 700
    assert sum(isinstance(value, Drop) for value in found.values()) < 12
