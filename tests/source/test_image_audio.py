"""Pictures and sounds as sources: folders by class, archives, tables with bytes, manifests; labels; what is missing."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from wuxing.core.context import Context
from wuxing.core.record import Drop, Record
from wuxing.source import rows_in, source_digest
from wuxing.source.config import SourceConfig
from wuxing.source.fields import Mapper


def picture(path: Path, level: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), level).save(path)
    return path.read_bytes()


def sound(path: Path, seconds: float = 0.1, rate: int = 8000) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(-0.5, 0.5, int(seconds * rate)), rate)
    return path.read_bytes()


def made(home: Path, **settings: object) -> list[Record | Drop]:
    source = SourceConfig.model_validate(settings)
    mapper = Mapper(source)
    return [mapper.record(row) for row in rows_in(source, Context(home=home))]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for kind, level in (("cat", 10), ("dog", 20)):
        for number in range(3):
            picture(tmp_path / "pets" / "train" / kind / f"{number}.png", level + number)
    return tmp_path / "pets"


def test_folders_by_class(pets: Path, tmp_path: Path) -> None:
    (pets / "train" / "dog" / "broken.png").write_bytes(b"")
    found = made(tmp_path, files=str(pets))
    assert [r.label for r in found if isinstance(r, Record)] == ["cat"] * 3 + ["dog"] * 3
    assert all(isinstance(r, Record) and r.image and r.text is None for r in found if not isinstance(r, Drop))
    assert [r.reason for r in found if isinstance(r, Drop)] == ["empty"]
    assert found[0].id == "pets/train/cat/0.png#0"  # type: ignore[union-attr]


def test_archives_of_files_and_labels_by_pattern(pets: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(pets.rglob("*.png")):
            archive.write(path, path.relative_to(pets))
    zipped = made(tmp_path, files=str(tmp_path / "pets.zip"))
    assert [r.label for r in zipped] == ["cat"] * 3 + ["dog"] * 3  # type: ignore[union-attr]
    for digit in "07":
        sound(tmp_path / "in" / f"{digit}_ann_0.wav")
    with tarfile.open(tmp_path / "digits.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in", "spoken")
    found = made(tmp_path, files=str(tmp_path / "digits.tar.gz"), label_pattern=r"/([0-9])_[a-z]+_[0-9]+\.wav")
    assert [(r.label, r.audio[:4]) for r in found] == [("0", b"RIFF"), ("7", b"RIFF")]  # type: ignore[union-attr, index]
    other = made(tmp_path, files=str(tmp_path / "digits.tar.gz"), label_pattern=r"/([0-6])_")
    assert isinstance(other[1], Drop) and other[1].reason == "no_label"


def test_parquet_with_bytes_and_names_of_classes(pets: Path, tmp_path: Path) -> None:
    data = [path.read_bytes() for path in sorted(pets.rglob("*.png"))]
    layout = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    images = pa.array([{"bytes": d, "path": None} for d in data], layout)
    table = pa.table({"image": images, "label": pa.array([0, 0, 0, 1, 1, -1])})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "pets.parquet")
    found = made(tmp_path, files=str(tmp_path / "pets.parquet"))
    assert [r.image for r in found] == data  # type: ignore[union-attr]
    assert [r.label for r in found][:5] == ["cat"] * 3 + ["dog"] * 2  # type: ignore[union-attr]
    pq.write_table(pa.table({"picture": data, "kind": ["x"] * 6}), tmp_path / "plain.parquet")
    fields = {"image": "picture", "label": "kind"}
    plain = made(tmp_path, files=str(tmp_path / "plain.parquet"), fields=fields)
    assert [(r.image, r.label) for r in plain] == [(d, "x") for d in data]  # type: ignore[union-attr]


def test_manifests_with_paths(pets: Path, tmp_path: Path) -> None:
    (pets / "list.csv").write_text("file_name,label\ntrain/cat/0.png,tom\ntrain/dog/9.png,rex\n")
    found = made(tmp_path, files=str(pets / "list.csv"))
    assert isinstance(found[0], Record) and found[0].label == "tom"
    assert found[0].image == (pets / "train/cat/0.png").read_bytes()
    assert found[1] == Drop("missing_file", "train/dog/9.png")
    encoded = base64.b64encode((pets / "train/cat/0.png").read_bytes()).decode()
    rows = [{"image": encoded, "label": "a"}, {"image": f"data:image/png;base64,{encoded}", "label": "b"}]
    (tmp_path / "coded.jsonl").write_text("\n".join(map(json.dumps, rows)))
    coded = made(tmp_path, files=str(tmp_path / "coded.jsonl"), fields={"image": "image", "label": "label"})
    assert [r.image for r in coded] == [found[0].image] * 2  # type: ignore[union-attr]


def test_manifests_of_sounds(tmp_path: Path) -> None:
    whole = sound(tmp_path / "set" / "clips" / "a.wav", seconds=1.0)
    (tmp_path / "set" / "train.tsv").write_text("client_id\tpath\tsentence\nme\ta.wav\thello there\n")
    fields = {"audio": "clips/{path}", "meta": ["sentence"]}
    [voice] = made(tmp_path, files=str(tmp_path / "set" / "train.tsv"), fields=fields)
    assert isinstance(voice, Record) and voice.audio == whole and voice.meta == {"sentence": "hello there"}
    rows = [
        {"audio_filepath": "clips/a.wav", "duration": 1.0, "text": "all of it"},
        {"audio_filepath": str(tmp_path / "set/clips/a.wav"), "duration": 0.25, "offset": 0.5, "text": "a part"},
        {"audio_filepath": "clips/a.wav", "duration": 2.0, "offset": 0.5, "text": "beyond"},
    ]
    (tmp_path / "set" / "nemo.jsonl").write_text("\n".join(map(json.dumps, rows)))
    all_of_it, part, beyond = made(tmp_path, files=str(tmp_path / "set" / "nemo.jsonl"))
    assert isinstance(all_of_it, Record) and all_of_it.audio == whole and all_of_it.meta["text"] == "all of it"
    assert isinstance(part, Record) and part.audio is not None
    (tmp_path / "part.flac").write_bytes(part.audio)
    samples, rate = soundfile.read(tmp_path / "part.flac", dtype="int16")
    expected, _ = soundfile.read(tmp_path / "set/clips/a.wav", dtype="int16")
    assert rate == 8000 and np.array_equal(samples, expected[4000:6000])
    assert isinstance(beyond, Drop) and beyond.reason == "broken_offset"


def test_a_named_file_is_part_of_the_identity(pets: Path, tmp_path: Path) -> None:
    (pets / "list.csv").write_text("file_name,label\ntrain/cat/0.png,tom\n")
    source, context = SourceConfig(files=str(pets / "list.csv")), Context(home=tmp_path)
    before = source_digest(source, context)
    assert before == source_digest(source, context)
    shutil.copy(pets / "train/dog/0.png", pets / "train/cat/0.png")
    assert source_digest(source, context) != before


def test_a_manifest_in_an_archive_reaches_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"\x89PNG secret")
    names = ["../secret.png", str(tmp_path / "secret.png"), "in/../../secret.png", "in/a.png"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("list.csv", "file_name\n" + "\n".join(names) + "\n")
        archive.writestr("in/a.png", b"\x89PNG inside")
    from wuxing.source.blob import ZipBlob
    from wuxing.source.medium import Shelf

    shelf = Shelf(ZipBlob("list.csv", tmp_path / "x.zip", "list.csv", 0, 0))
    found = [shelf.read(name) for name in names]
    assert [isinstance(one, Drop) and one.reason for one in found[:3]] == ["missing_file"] * 3
    assert found[3] == b"\x89PNG inside"


def test_text_that_names_pictures_stays_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "see a.png", "path": "a.png"}) + "\n")
    [found] = made(tmp_path, files=str(tmp_path / "t.jsonl"))
    assert isinstance(found, Record) and found.text == "see a.png" and found.image is None


def test_real_digits(data_directory: Path, tmp_path: Path) -> None:
    pattern = r"/([0-9])_[a-z]+_[0-9]+\.wav"
    found = made(tmp_path, files=str(data_directory / "audio/spoken-digits.tar.gz"), label_pattern=pattern)
    assert len(found) == 1200 and {r.label for r in found} == set("0123456789")  # type: ignore[union-attr]
