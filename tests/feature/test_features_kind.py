"""The step `features` from end to end: on real text, images, sounds; seeded faults; the same bytes every time."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from small_corpus import corpus_of, digits, fashion, sentiment, tang

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.digest import digest_of_file
from wuxing.core.error import WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.record import Fates, Record
from wuxing.feature import load_transform
from wuxing.feature.config import FeaturesConfig
from wuxing.feature.evidence import examine
from wuxing.feature.fitted import Room
from wuxing.feature.kind import FeaturesKind
from wuxing.feature.matrix import Features
from wuxing.feature.reference import measure

Make = Callable[..., Artifact]


@pytest.fixture
def reviews(data_directory: Path, tmp_path: Path) -> Artifact:
    records = sentiment(data_directory, count=900)
    return corpus_of(tmp_path / "reviews", records[:600], records[600:750], records[750:])


def made(make_step: Make, data: Artifact, transforms: list[Any], **config: Any) -> Artifact:
    context = config.pop("context", None)
    seed = config.pop("seed", 7)
    values = {"data": "reviews", "transforms": transforms, **config}
    artifact = make_step(FeaturesKind(), values, {"data": data}, seed=seed, context=context)
    assert not artifact.failures, artifact.failures
    return artifact


def files_of(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != "record.json"]
    return {str(path.relative_to(directory)): digest_of_file(path) for path in paths}


def test_text_features_tell_opinions_apart(make_step: Make, reviews: Artifact) -> None:
    artifact = made(make_step, reviews, [{"tf_idf": {"ngrams": 2, "min_records": 3}}, {"word2vec": {"width": 16}}])
    probe = artifact.evidence.value("probe")
    assert probe["split"] == "validation" and probe["gain"]["low"] > 0
    features = Features(artifact.path)
    assert features.names[0].startswith("tf_idf:") and features.names[-1] == "word2vec:d15"
    matrix = features.matrix("test")
    assert isinstance(matrix, sparse.csr_array) and matrix.shape == (150, len(features.names))
    assert features.ids("test") == [r.id for r in _records(reviews, "test")]
    assert features.classes("test") == [r.label for r in _records(reviews, "test")]
    assert 0 < artifact.evidence.value("unseen")["tf_idf"]["validation"] < 1


def _records(artifact: Artifact, split: str) -> list[Record]:
    from wuxing.core.splits import read_records

    return list(read_records(artifact.path, split))


def test_stored_transform_serves_later_records(make_step: Make, reviews: Artifact) -> None:
    artifact = made(make_step, reviews, ["tf_idf", {"word2vec": {"width": 8, "scale": "standard"}}])
    transform = load_transform(artifact.path)
    records = _records(reviews, "test")[:20]
    stored = Features(artifact.path).matrix("test")[:20]
    assert abs(transform(records) - stored).max() == 0
    assert abs(transform(records[7:8]) - stored[[7]]).max() == 0
    later = transform([Record("new", "x", messages=[{"role": "user", "content": records[0].text or ""}])])
    assert abs(later - stored[[0]]).max() == 0
    assert transform([Record("odd", "x", text="")]).shape == (1, len(transform.names))
    with pytest.raises(WuxingError, match="odd cannot become features"):
        transform([Record("odd", "x", image=b"no text here")])
    nearest = transform.part("word2vec").nearest("film", 3)  # type: ignore[attr-defined]
    assert len(nearest) == 3 and nearest[0][1] <= 1
    with pytest.raises(WuxingError, match='Did you mean "word2vec"'):
        transform.part("word2vector")


def test_twice_gives_the_same_bytes_whatever_the_workers(make_step: Make, reviews: Artifact, tmp_path: Path) -> None:
    transforms = [{"tf_idf": {"scale": "max_abs"}}, {"word2vec": {"width": 8, "epochs": 1}}]
    first = files_of(made(make_step, reviews, transforms, workers=1).path)
    shutil.rmtree(tmp_path / "made")
    second = files_of(made(make_step, reviews, transforms, workers=2).path)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


def test_held_out_records_have_no_part_in_what_is_learnt(make_step: Make, reviews: Artifact, tmp_path: Path) -> None:
    train, validation = _records(reviews, "train"), _records(reviews, "validation")
    strange = [replace(record, text=f"{record.text} zyzzyva zyzzyva") for record in validation]
    other = corpus_of(tmp_path / "other", train, strange, _records(reviews, "test"))
    transforms = [{"tf_idf": {"min_records": 1, "scale": "max_abs"}}, {"word2vec": {"width": 8, "scale": "standard"}}]
    names = {"tf_idf/vocabulary.parquet", "tf_idf/scale.safetensors", "word2vec/vectors.safetensors", "reference.json"}
    plain = files_of(made(make_step, reviews, transforms).path)
    shutil.rmtree(tmp_path / "made")
    changed = made(make_step, other, transforms)
    assert {name: plain[name] for name in names} == {name: files_of(changed.path)[name] for name in names}
    assert not any("zyzzyva" in name for name in Features(changed.path).names)


@pytest.mark.parametrize("how", ["vocabulary", "vectors", "scale", "values", "rows", "replay"])
def test_evidence_sees_a_seeded_fault(make_step: Make, reviews: Artifact, tmp_path: Path, how: str) -> None:
    transforms = [{"tf_idf": {"min_records": 1}}, {"word2vec": {"width": 8, "scale": "standard", "epochs": 1}}]
    artifact = made(make_step, reviews, transforms)
    whole = corpus_of(
        tmp_path / "whole",
        _records(reviews, "train") + _records(reviews, "validation"),
        _records(reviews, "validation"),
    )
    leaked = make_step(FeaturesKind(), {"data": "x", "transforms": transforms}, {"data": whole}, name="leaked").path
    spoilt = {"vocabulary": "tf_idf", "vectors": "word2vec"}
    if how in spoilt:
        shutil.copytree(leaked / spoilt[how], artifact.path / spoilt[how], dirs_exist_ok=True)
    elif how == "scale":
        _spoil_matrix(artifact.path, lambda column: column * 2)
    elif how == "values":
        _spoil_matrix(artifact.path, lambda column: np.where(column == column[0], np.nan, column))
    elif how == "replay":
        _spoil_matrix(artifact.path, lambda column: column + 1e-3, "test")
    fates = Fates(900, Counter(kept=899 if how == "rows" else 900))
    fates.total = fates.counts["kept"]
    config = FeaturesConfig.model_validate({"make": "features", "data": "x", "transforms": transforms})
    evidence = Evidence()
    room = Room(tmp_path / "again", 7, Context(home=tmp_path))
    examine(artifact.path, reviews.path, config, fates, measure(artifact.path), room, evidence)
    failed = {line.split(" is ")[0] for line in evidence.failures()}
    expected = {"values": "finite", "rows": "shapes", "replay": "reapplied_equal"}.get(how, "fitted_on_train_only")
    assert expected in failed, (how, evidence.failures())


def _spoil_matrix(directory: Path, change: Callable[[np.ndarray], np.ndarray], split: str = "train") -> None:
    import pyarrow as pa

    path = directory / "matrix" / f"{split}.parquet"
    table = pq.read_table(path)
    column = table["word2vec"].combine_chunks()
    values = np.asarray(column.flatten()).reshape(len(column), -1)
    flat = pa.array(np.ascontiguousarray(change(values), np.float32).ravel())
    spoilt = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(column.type)
    pq.write_table(table.set_column(table.schema.get_field_index("word2vec"), "word2vec", spoilt), path)


def test_reference_is_what_numpy_says(make_step: Make, reviews: Artifact) -> None:
    artifact = made(make_step, reviews, [{"word2vec": {"width": 8}}, {"tf_idf": {"max_features": 40}}])
    features = Features(artifact.path)
    dense = features.matrix("train").toarray().astype(np.float64)
    reference = features.reference
    assert reference["records"] == 600 and reference["features"] == 48 == len(reference["columns"])
    for place, name in enumerate(features.names):
        column = reference["columns"][name]
        assert np.allclose(column["mean"], dense[:, place].mean(), atol=1e-6)
        assert np.allclose(column["deviation"], dense[:, place].std(), atol=1e-6)
        assert np.allclose([column["min"], column["max"]], [dense[:, place].min(), dense[:, place].max()], atol=1e-6)
        assert np.allclose(column["quantiles"], np.quantile(dense[:, place], reference["quantiles"]), atol=1e-6)
    lengths = np.quantile(np.linalg.norm(dense, axis=1), reference["quantiles"])
    assert np.allclose(reference["row_length"], lengths, rtol=1e-5)
    assert np.allclose(features.values("train", features.names[3]), dense[:, 3])


def test_drift_of_a_feature_is_seen(make_step: Make, data_directory: Path, tmp_path: Path) -> None:
    from wuxing.monitor.drift import judge_drift

    films = sentiment(data_directory, count=900)
    goods = sentiment(data_directory, "amazonReviewSnippets", 300)
    data = corpus_of(tmp_path / "films", films[:600], films[600:])
    artifact = made(make_step, data, [{"bag_of_words": {"max_features": 50}}])
    features, name = Features(artifact.path), "bag_of_words:i"
    then, same = features.values("train", name), features.values("validation", name)
    place = features.names.index(name)
    now = features.transform(goods).toarray()[:, place].tolist()
    assert judge_drift(name, then, same).verdict == "steady"
    assert judge_drift(name, then, now).verdict == "drifted"


def test_images(make_step: Make, data_directory: Path, tmp_path: Path) -> None:
    train, test = fashion(data_directory, "train", 400), fashion(data_directory, "test", 150)
    broken = [
        Record("cut", "f", image=(train[0].image or b"")[:80], label="bag"),
        Record("text", "f", text="?", label="bag"),
    ]
    data = corpus_of(tmp_path / "clothes", [*train, *broken], test)
    transforms = [{"hog": {"width": 28, "height": 28}}, "colour_histogram", {"edges": {"scale": "standard"}}]
    artifact = made(make_step, data, transforms)
    assert artifact.evidence.value("probe")["gain"]["low"] > 0.3
    fates = json.loads((artifact.path / "fates.json").read_text())
    assert fates["counts"] == {"kept": 550, "unreadable:image": 1, "filtered:no_image": 1}
    named = pq.read_table(artifact.path / "fates.parquet").to_pylist()
    assert {row["id"]: row["fate"] for row in named if row["fate"] != "kept"} == {
        "cut": "unreadable:image",
        "text": "filtered:no_image",
    }
    matrix = Features(artifact.path).matrix("train")
    assert isinstance(matrix, np.ndarray) and matrix.dtype == np.float32 and matrix.shape[0] == 400
    edges = matrix[:, [name.startswith("edges:") for name in Features(artifact.path).names]]
    varies = edges.std(0) > 0
    assert np.allclose(edges.mean(0), 0, atol=1e-4) and np.allclose(edges[:, varies].std(0), 1, atol=1e-3)


def test_sounds(make_step: Make, data_directory: Path, tmp_path: Path) -> None:
    records = digits(data_directory)[::3]
    data = corpus_of(tmp_path / "digits", records[::2], records[1::2])
    transforms = [{"mfcc": {"rate": 8000}}, {"log_mel": {"rate": 8000, "pool": "frames", "seconds": 0.4, "bands": 20}}]
    artifact = made(make_step, data, transforms, label="speaker")
    probe = artifact.evidence.value("probe")
    assert probe["classes"] == 4 and probe["gain"]["low"] > 0.3


def test_chinese(make_step: Make, data_directory: Path, tmp_path: Path) -> None:
    poems = [replace(poem, label=None) for poem in tang(data_directory, 1000)]
    data = corpus_of(tmp_path / "poems", poems[:800], poems[800:])
    artifact = made(
        make_step, data, [{"tf_idf": {"max_features": 2000}}, {"word2vec": {"words": "rjieba", "width": 8}}]
    )
    names = Features(artifact.path).names
    assert any(len(name.removeprefix("tf_idf:")) == 2 for name in names)


def test_sentence_embedding(make_step: Make, reviews: Artifact, tmp_path: Path) -> None:
    encoder = _encoder(tmp_path / "encoder")
    settings = {"sentence_embedding": {"directory": str(encoder), "max_tokens": 24, "normalise": False}}
    artifact = made(make_step, reviews, [settings])
    shutil.rmtree(encoder)  # the artifact stands alone
    records = _records(reviews, "test")[:12]
    found = load_transform(artifact.path)(records)
    assert np.allclose(found, _plain_means(artifact.path / "sentence_embedding" / "encoder", records), atol=1e-5)
    assert np.allclose(found, Features(artifact.path).matrix("test")[:12], atol=1e-4)
    assert "encoder of sentence_embedding" not in json.loads((artifact.path / "transform.json").read_text())
    with pytest.raises(WuxingError, match="holds no encoder"):
        FeaturesKind().inputs(_config([settings]), Context(home=tmp_path))


def _config(transforms: list[Any]) -> FeaturesConfig:
    return FeaturesConfig.model_validate({"make": "features", "data": "x", "transforms": transforms})


def _encoder(directory: Path) -> Path:
    """A BERT of random weights with a vocabulary of letters."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters)]
    fast = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    fast.normalizer, fast.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    fast.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(directory)
    PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    (directory / "evil.py").write_text("raise SystemExit")
    return directory


def _plain_means(directory: Path, records: list[Record]) -> np.ndarray:
    """The mean over tokens, each text alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    assert not (directory / "evil.py").exists()
    model, tokenizer = AutoModel.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    rows = []
    for record in records:
        tokens = tokenizer(record.text, return_tensors="pt", truncation=True, max_length=24)
        with torch.inference_mode():
            rows.append(model(**tokens).last_hidden_state[0].mean(0).numpy())
    return np.array(rows)


def test_many_classes_are_bounded(make_step: Make, data_directory: Path, tmp_path: Path) -> None:
    """Hundreds of authors times thousands of words once took 9 GB."""
    poems = tang(data_directory, 4000)
    assert len({poem.label for poem in poems}) > 120
    data = corpus_of(tmp_path / "poems", poems[1::2], poems[::2])
    artifact = made(make_step, data, [{"tf_idf": {"max_features": 6000, "min_records": 1}}], probe={"max_records": 400})
    probe = artifact.evidence.value("probe")
    assert probe["classes"] == 100 and probe["classes_left_out"] > 0
    assert 0 < probe["accuracy"]["n"] <= 400


def test_no_labels_no_probe(make_step: Make, tmp_path: Path) -> None:
    records = [Record(str(i), "x", text=f"some words number {i % 7}") for i in range(40)]
    artifact = made(make_step, corpus_of(tmp_path / "plain", records[:30], records[30:]), ["bag_of_words"])
    assert artifact.evidence.value("probe") is None


def test_empty_held_out_splits(make_step: Make, tmp_path: Path) -> None:
    records = [Record(str(i), "x", text=f"some words number {i % 7}", label=str(i % 2)) for i in range(40)]
    artifact = made(make_step, corpus_of(tmp_path / "plain", records, []), [{"word2vec": {"width": 4, "min_count": 2}}])
    assert Features(artifact.path).matrix("validation").shape == (0, 4)


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([{"tf_idf": {"min_records": 999}}], "no term of the train split is within the bounds"),
        (["hog"], "none of train holds image"),
    ],
)
def test_features_of_nothing_are_refused(make_step: Make, tmp_path: Path, transforms: list[Any], message: str) -> None:
    data = corpus_of(tmp_path / "plain", [Record(str(i), "x", text="a b c") for i in range(5)], [])
    with pytest.raises(WuxingError, match=message):
        make_step(FeaturesKind(), {"data": "x", "transforms": transforms}, {"data": data})


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([], "transforms is empty"),
        (["tf_idf", "hog"], "one kind of content, not image and text"),
        ([{"tf_idf": {"scale": "standard"}}], "would fill every 0"),
        (["sentence_embedding"], "exactly one of directory, package"),
        ([{"log_mel": {"rate": 8000}}, "mfcc"], "brought to one rate"),
        ([{"log_mel": {"pool": "frames"}}], "seconds goes with pool: frames"),
        ([{"mfcc": {"coefficients": 90}}], "need as many bands"),
        ([{"hog": {"cell": 64}}], "does not fit"),
        ([{"log_mel": {"high_hz": 9000}}], "do not fit below half of rate"),
    ],
)
def test_wrong_recipes_are_named(transforms: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(transforms)


def test_a_transform_twice_has_two_names() -> None:
    assert _config([{"tf_idf": {"words": "characters"}}, "tf_idf"]).labels == ("tf_idf_1", "tf_idf_2")
