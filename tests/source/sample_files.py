"""Small real files of every format, made on the spot, each with the texts that it must give."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

SENTENCES = [
    f"The river number {n} runs past the old mill, and the children of the village swim in it all summer long."
    for n in range(8)
]
CHINESE = "春天来了，院子里的桃花开得正好，孩子们在树下追逐嬉戏，老人坐在门前晒太阳。"


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def pdf(pages: list[str]) -> bytes:
    """A PDF written by hand: one line of Helvetica on each page."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, text in enumerate(pages):
        lines = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        drawn = f"BT /F1 9 Tf 12 TL 40 700 Td {lines} ET".encode()
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 900 792] /Contents {5 + 2 * number} 0 R "
            f"/Resources << /Font << /F1 3 0 R >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)


def zipped(members: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def docx(paragraphs: list[str], body: str = "") -> bytes:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    runs = "".join(f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>" for text in paragraphs)
    core = (
        '<cp:coreProperties xmlns:cp="c" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:title>Rivers</dc:title></cp:coreProperties>"
    )
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": f"<w:document {space}><w:body>{runs}{body}</w:body></w:document>",
            "docProps/core.xml": core,
        }
    )


def odt(paragraphs: list[str]) -> bytes:
    text = "".join(f"<text:p>{paragraph}</text:p>" for paragraph in paragraphs)
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f'<office:document-content xmlns:office="o" xmlns:text="t">{text}</office:document-content>',
        }
    )


def epub(chapters: list[str]) -> bytes:
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    members: dict[str, bytes | str] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        "OPS/book.opf": (
            '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>Rivers</dc:title>'
            f"<dc:creator>A. Miller</dc:creator></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
        ),
    }
    for number, text in enumerate(chapters):
        members[f"OPS/text/c {number}.xhtml"] = f"<html><body><h1>{number}</h1><p>{text}</p></body></html>"
    return zipped(members)


def html(text: str, charset: str = "utf-8", title: str = "Rivers") -> bytes:
    page = (
        f'<!doctype html><html><head><meta charset="{charset}"><title>{title}</title><style>p {{}}</style></head><body>'
        '<nav class="menu"><ul><li><a href="/a">Home</a></li><li><a href="/b">Imprint</a></li></ul></nav>'
        f"<article><p>{text}</p><script>var x = 1;</script></article>"
        '<footer class="footer">All rights reserved</footer></body></html>'
    )
    return page.encode(charset)


def warc_record(number: int, body: bytes, kind: str = "response", status: int = 200, mime: str = "text/html") -> bytes:
    http = (
        b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, mime.encode(), len(body)) + body
    )
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://x.example/{number}\r\n"
        f"WARC-Date: 2024-01-02T03:04:05Z\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def mail(text: str, subject: str = "Rivers") -> bytes:
    head = f"From: a@x.example\r\nTo: b@x.example\r\nSubject: {subject}\r\nDate: Tue, 2 Jan 2024 03:04:05 +0000\r\n"
    return f"{head}MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n".encode()


def mbox(texts: list[str]) -> bytes:
    start = b"From a@x.example Tue Jan  2 03:04:05 2024\n"
    return b"".join(start + mail(text).replace(b"\r\n", b"\n") + b"\n" for text in texts)


def arrow(rows: list[dict[str, str]], file: bool = False) -> bytes:
    table, sink = pa.Table.from_pylist(rows), pa.BufferOutputStream()
    new = pa.ipc.new_file if file else pa.ipc.new_stream
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue().to_pybytes()


def parquet(rows: list[dict[str, str]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


def files() -> dict[str, tuple[bytes, list[str]]]:
    """Name → (content, the texts it holds)."""
    texts = SENTENCES
    rows = [{"text": text} for text in texts]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows).encode()
    csv = "text,n\r\n" + "".join(f'"{text}",{n}\r\n' for n, text in enumerate(texts))
    return {
        "a.txt": (texts[0].encode(), [texts[0]]),
        "a.md": (f"---\ntitle: Rivers\n---\n{texts[0]}".encode(), [texts[0]]),
        "a.jsonl": (jsonl, texts),
        "a.json": (json.dumps(rows).encode(), texts),
        "a.yaml": ("".join(f'- text: "{text}"\n' for text in texts).encode(), texts),
        "a.csv": (csv.encode(), texts),
        "a.tsv": (csv.replace(",", "\t").encode(), [text.replace(",", "\t") for text in texts]),
        "a.parquet": (parquet(rows), texts),
        "a.arrow": (arrow(rows), texts),
        "a.feather": (arrow(rows, file=True), texts),
        "a.html": (html(texts[0]), [texts[0]]),
        "a.warc": (b"".join(warc_record(n, html(text)) for n, text in enumerate(texts)), texts),
        "a.pdf": (pdf(texts[:2]), ["\n\n".join(texts[:2])]),
        "a.docx": (docx(texts[:3]), ["\n".join(texts[:3])]),
        "a.odt": (odt(texts[:3]), ["\n".join(texts[:3])]),
        "a.epub": (epub(texts[:2]), [f"0\n\n{texts[0]}\n\n1\n\n{texts[1]}"]),
        "a.eml": (mail(texts[0]), [texts[0]]),
        "a.mbox": (mbox(texts), texts),
        "a.zip": (zipped({"x.jsonl": jsonl, "d/y.txt": texts[0]}), [*texts, texts[0]]),
        "a.tar": (tarred({"x.jsonl": jsonl, "d/y.html": html(texts[0])}), [*texts, texts[0]]),
    }


def write_all(directory: Path) -> None:
    """All of them, as files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in files().items():
        (directory / name).write_bytes(content)
