"""The step kind: its evidence, and that the evidence can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wuxing.core.artifact import Artifact
from wuxing.core.error import WuxingError
from wuxing.core.evidence import Evidence
from wuxing.core.record import Record
from wuxing.core.splits import write_records
from wuxing.text.tokenizer import Tokenizer
from wuxing.text.tokenizer_evidence import examine
from wuxing.text.tokenizer_kind import TokenizerKind


def corpus(directory: Path, texts: list[str]) -> Artifact:
    """A corpus of documents and one dialogue, of which two are held out."""
    directory.mkdir()
    languages = ({"language": "zh"} if text > "一" else {"language": "en"} for text in texts)
    records = [Record(f"r{n}", "s", text=t, meta=m) for n, (t, m) in enumerate(zip(texts, languages, strict=True))]
    dialogue = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    write_records(directory, "train", [*records, Record("d", "s", messages=dialogue)] if records else [])
    write_records(directory, "validation", [Record("v", "s", text="A held-out text.", meta={"language": "en"})])
    write_records(directory, "test", [Record("t", "s", text="未见的文字。", meta={"language": "zh"})])
    record = {"kind": "corpus", "name": directory.name, "version": 1, "content": directory.name, "files": {}}
    return Artifact(directory, record)


TEXTS = [f"The {a} {b} of the {c}." for a in ("old", "new") for b in ("town", "tower") for c in ("sea", "sun")]
TEXTS += ["中国的首都是北京。", "北京是中国的城市。"] * 3


def test_it_writes_three_files_and_passes_its_own_checks(make_step: Callable[..., Artifact], tmp_path: Path) -> None:
    made = make_step(TokenizerKind(), {"corpus": "c", "vocab_size": 300}, {"corpus": corpus(tmp_path / "c", TEXTS)})
    assert made.record["failures"] == []
    assert Tokenizer.load(made.path).vocab_size == 300
    expected = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "evidence.json"}
    assert {p.name for p in made.path.iterdir()} == expected
    rates = made.evidence.value("bytes_per_token")
    assert set(rates) == {"en", "zh", "all"}


def test_two_corpora_make_one_tokenizer(make_step: Callable[..., Artifact], tmp_path: Path) -> None:
    kind = TokenizerKind()
    config = {"corpus": ["c", "d"], "vocab_size": 300}
    parents = {"corpus 1": corpus(tmp_path / "c", TEXTS[:8]), "corpus 2": corpus(tmp_path / "d", TEXTS[8:])}
    assert list(kind.parents(kind.Config.model_validate({"make": "tokenizer", **config}))) == list(parents)
    made = make_step(kind, config, parents)
    assert len(Tokenizer.load(made.path).encode("的首都")) < len("的首都".encode())


def test_an_empty_corpus_is_named(make_step: Callable[..., Artifact], tmp_path: Path) -> None:
    with pytest.raises(WuxingError, match="thing has no text to learn from"):
        make_step(TokenizerKind(), {"corpus": "c", "vocab_size": 300}, {"corpus": corpus(tmp_path / "c", [])})


def failures(tokenizer: Tokenizer, directory: Path) -> list[str]:
    """Names of the checks that a tokenizer's files fail."""
    tokenizer.save(directory)
    evidence = Evidence()
    examine(directory, {"en": ["The old town of the sea."]}, evidence)
    return [check.name for check in evidence.checks if check.verdict == "failed"]


def spoil(directory: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_sound_tokenizer_fails_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert failures(tokenizer, tmp_path) == []


def test_a_normaliser_that_changes_text_is_caught(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    spoil(tmp_path, lambda content: content.update(normalizer={"type": "Lowercase"}))
    assert failures(Tokenizer.load(tmp_path), tmp_path) == ["round_trip", "reference_encoder"]


def test_special_tokens_that_are_parsed_in_text_are_caught(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def disarm(content: dict[str, object]) -> None:
        for token in content["added_tokens"]:  # type: ignore[attr-defined]
            token["special"] = token["content"] != "<|im_end|>"

    tokenizer.save(tmp_path)
    spoil(tmp_path, disarm)
    assert "special_text" in failures(Tokenizer.load(tmp_path), tmp_path)
