"""The step kind `tokens` on real articles and dialogues: counts, round trips, masks, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.error import RefusedError
from wuxing.core.record import Record
from wuxing.core.splits import write_records
from wuxing.data.tokens import open_tokens
from wuxing.data.tokens_kind import TokensKind
from wuxing.text.tokenizer import Tokenizer
from wuxing.text.train import train_tokenizer

TEXTS = [
    "The river rises in the hills and flows to the sea.",
    "五行是中国古代的哲学概念。",
    "A <|endoftext|> that is only written down, and <|im_end|> too.",
    "Zoë said: naïve café — 3.14 ≈ π\n\n\ttabs and   spaces ",
]
TALKS = [("What is 2 + 3?", "5"), ("Hello!", "Good day to you."), ("<|im_end|>", "That is just text.")]


def record_of(directory: Path, kind: str) -> Artifact:
    files = {path.name: {"sha256": "", "bytes": path.stat().st_size} for path in directory.iterdir()}
    return Artifact(
        directory,
        {"kind": kind, "name": directory.name, "version": 1, "content": directory.name, "files": files, "failures": []},
    )


def corpus(directory: Path, roles: tuple[str, str] = ("user", "assistant"), text: bool = True) -> Artifact:
    directory.mkdir()
    talks = [
        Record(f"talk-{n}", "s", messages=[{"role": roles[0], "content": q}, {"role": roles[1], "content": a}])
        for n, (q, a) in enumerate(TALKS)
    ]
    texts = [Record(f"text-{n}", "s", text=t) for n, t in enumerate(TEXTS)] if text else []
    for split in ("train", "validation", "test"):
        write_records(directory, split, talks + texts if split == "train" else talks[:1])
    return record_of(directory, "corpus")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    directory = tmp_path_factory.mktemp("made") / "vocabulary"
    directory.mkdir()
    train_tokenizer(TEXTS * 3, 300).save(directory)
    return record_of(directory, "tokenizer")


def make(make_step: Callable[..., Artifact], tokenizer: Artifact, data: Artifact) -> Artifact:
    config: dict[str, Any] = {"tokenizer": "vocabulary", "data": "corpus"}
    return make_step(TokensKind(), config, {"tokenizer": tokenizer, "data": data})


def test_documents_come_back_exactly(make_step: Callable[..., Artifact], tokenizer: Artifact, tmp_path: Path) -> None:
    made = make(make_step, tokenizer, corpus(tmp_path / "c"))
    assert made.record["failures"] == []
    data, words = open_tokens(made.path, "train"), Tokenizer.load(tokenizer.path)
    assert len(data) == len(TEXTS) + len(TALKS)
    for number, text in enumerate(TEXTS):
        row = list(data.names).index(f"text-{number}")
        ids = data.ids[data.start[row] : data.start[row] + data.tokens[row]]
        assert ids[-1] == words.end_of_text_id and words.decode(ids[:-1].tolist(), skip_special=False) == text
        assert data.taught[row] == data.tokens[row]
    assert made.evidence.value("counts_equal") == {"train": 7, "validation": 1, "test": 1}


def test_only_what_the_assistant_says_is_taught(
    make_step: Callable[..., Artifact], tokenizer: Artifact, tmp_path: Path
) -> None:
    made = make(make_step, tokenizer, corpus(tmp_path / "c", text=False))
    data, words = open_tokens(made.path, "train"), Tokenizer.load(tokenizer.path)
    for row, (_, reply) in enumerate(TALKS):
        ids, taught = data.labels(int(data.start[row]), int(data.start[row] + data.tokens[row]))
        learnt = ids[taught].tolist()
        assert learnt[-1] == words.end_of_turn_id and words.decode(learnt[:-1], skip_special=False) == reply
    assert data.bytes == sum(len(reply.encode()) for _, reply in TALKS)


def test_a_corpus_whose_every_label_is_masked_is_refused(
    make_step: Callable[..., Artifact], tokenizer: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError) as refused:
        make(make_step, tokenizer, corpus(tmp_path / "silent", roles=("system", "user"), text=False))
    assert "every label of corpus/silent@v1 (train) is masked" in str(refused.value)
    assert "role assistant" in str(refused.value) and refused.value.exit_code == 3


def test_equal_data_give_equal_bytes_and_a_model_may_be_the_tokenizer(
    make_step: Callable[..., Artifact], tokenizer: Artifact, tmp_path: Path
) -> None:
    first = make(make_step, tokenizer, corpus(tmp_path / "c"))
    files = {name: entry["sha256"] for name, entry in first.record["files"].items()}
    model = record_of(tokenizer.path, "model")
    again = make_step(
        TokensKind(),
        {"tokenizer": "base", "data": "corpus"},
        {
            "tokenizer": model,
            "data": record_of(tmp_path / "c", "corpus"),
        },
        name="again",
    )
    assert files == {name: entry["sha256"] for name, entry in again.record["files"].items()}
    assert TokensKind().parents(TokensKind.Config(make="tokens", tokenizer="a", data="b"))["tokenizer"].members == (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    )


def test_an_id_outside_of_the_vocabulary_is_caught(
    make_step: Callable[..., Artifact], tokenizer: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Tokenizer.encode_flat

    def wrong(self: Tokenizer, texts: list[str]) -> tuple[Any, Any]:
        ids, ends = honest(self, texts)
        return np.where(np.arange(len(ids)) == 3, 999, ids).astype(np.uint32), ends

    monkeypatch.setattr(Tokenizer, "encode_flat", wrong)
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids, skip_special=True: "other text")
    made = make(make_step, tokenizer, corpus(tmp_path / "c"))
    assert any("ids_in_vocabulary" in line for line in made.record["failures"])
    assert any("round_trip" in line for line in made.record["failures"])


def test_real_articles_round_trip(
    make_step: Callable[..., Artifact], tokenizer: Artifact, tmp_path: Path, data_directory: Path
) -> None:
    path = next((data_directory / "text").rglob("*.txt"), None)
    if path is None:
        pytest.skip("the folder of real data has no text/*.txt")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:300]
    directory = tmp_path / "real"
    directory.mkdir()
    for split in ("train", "validation", "test"):
        write_records(directory, split, [Record(f"{split}-{n}", "s", text=line) for n, line in enumerate(lines)])
    made = make(make_step, tokenizer, record_of(directory, "corpus"))
    data = open_tokens(made.path, "test")
    assert made.record["failures"] == [] and len(data) == len(lines)
    assert data.bytes == sum(len(line.encode()) for line in lines)
    assert np.all(np.asarray(data.ids)[data.start - 1] == data.end_of_text_id)
