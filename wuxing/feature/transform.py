"""A fitted transform: from records to a matrix, in memory or from its directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wuxing.core.error import WuxingError, nearest
from wuxing.core.file import read_json, write_json
from wuxing.core.record import Drop, Record
from wuxing.core.step import content_of
from wuxing.feature.config import FeaturesConfig, SoundSettings, TransformChoice, TransformSettings
from wuxing.feature.content import Chunk, Reader
from wuxing.feature.fitted import Fitted, Room, fit, load
from wuxing.feature.scale import Scale
from wuxing.feature.scale import fit as fit_scale

if TYPE_CHECKING:
    import pyarrow

    from wuxing.feature.fitted import Matrix

FILE = "transform.json"
FORMAT = 1


@dataclass
class Part:
    """One of the transforms that stand side by side."""

    label: str
    choice: TransformChoice
    fitted: Fitted
    scale: Scale | None = None

    def apply(self, values: Sequence[Any]) -> Matrix:
        """Rows of this part, scaled."""
        rows = self.fitted.apply(values)
        return rows if self.scale is None else self.scale.apply(rows)

    @property
    def settings(self) -> TransformSettings:
        settings = self.choice.settings
        assert isinstance(settings, TransformSettings)
        return settings


class Transform:
    """Records → rows of numbers, by one or more fitted transforms side by side."""

    def __init__(self, parts: Sequence[Part], reader: Reader):
        self.parts, self.reader = list(parts), reader

    @cached_property
    def names(self) -> list[str]:
        """What each column is: `tf_idf:word`."""
        return [f"{part.label}:{name}" for part in self.parts for name in part.fitted.names]

    @property
    def sparse(self) -> bool:
        """Whether rows come as a scipy.sparse.csr_array."""
        return any(part.fitted.sparse for part in self.parts)

    @property
    def tolerance(self) -> float:
        """Largest difference of a value computed alone and beside other records."""
        return max(part.fitted.tolerance for part in self.parts)

    def __call__(self, records: Iterable[Record]) -> Matrix:
        """One row per record, float32; WuxingError naming the first record that lacks the content."""
        values = []
        for record in records:
            value = self.reader.value(vars(record))
            if isinstance(value, Drop):
                raise WuxingError(f"{record.id} cannot become features: {value.detail}", value.reason)
            values.append(value)
        return self.matrix(values)

    def matrix(self, values: Sequence[Any]) -> Matrix:
        """One row per decoded value (texts, pictures, samples)."""
        return side_by_side([part.apply(values) for part in self.parts])

    def part(self, label: str) -> Fitted:
        """One of the transforms, such as `word2vec` to ask for nearest words."""
        for part in self.parts:
            if part.label == label:
                return part.fitted
        raise WuxingError(f'there is no transform "{label}"', nearest(label, [part.label for part in self.parts]))

    def save(self, directory: Path) -> None:
        """Write `transform.json` and one directory per part."""
        described = []
        for part in self.parts:
            room = directory / part.label
            room.mkdir(parents=True, exist_ok=True)
            part.fitted.save(room)
            if part.scale is not None:
                part.scale.save(room / "scale.safetensors")
            described.append(_described(part))
        reader = {"content": self.reader.content, "label": self.reader.label, "rate": self.reader.rate}
        write_json(directory / FILE, {"format": FORMAT, "reader": reader, "parts": described})


def _described(part: Part) -> dict[str, Any]:
    settings = content_of(part.settings)
    if part.choice.chosen == "sentence_embedding":
        settings |= {"directory": "encoder", "package": None}  # its files lie beside; where they came from is lineage
    return {"label": part.label, "transform": {part.choice.chosen: settings}, "features": len(part.fitted.names)}


def load_transform(directory: Path | str) -> Transform:
    """The transform that a `features` artifact holds; apply it to any records."""
    directory = Path(directory)
    if not (directory / FILE).is_file():
        raise WuxingError(f"{directory} holds no {FILE}", "Give the directory of a features artifact")
    written = read_json(directory / FILE)
    if written["format"] != FORMAT:
        raise WuxingError(f"{directory / FILE} is of format {written['format']}", f"This release reads {FORMAT}")
    parts = []
    for item in written["parts"]:
        choice = TransformChoice.model_validate(item["transform"])
        room = directory / item["label"]
        scale = room / "scale.safetensors"
        fitted = load(choice.chosen, choice.settings, room)
        parts.append(Part(item["label"], choice, fitted, Scale.load(scale) if scale.is_file() else None))
    return Transform(parts, Reader(**written["reader"]))


@dataclass(frozen=True)
class Split:
    """The decoded values of one split, read anew each time."""

    reader: Reader
    directory: Path
    split: str = "train"

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.chunks():
            yield from chunk.values

    def chunks(self) -> Iterator[Chunk]:
        """The same, some records at a time."""
        for batch in self.reader.batches(self.directory, self.split):
            yield self.reader.decode(batch)


def reader_of(config: FeaturesConfig) -> Reader:
    """How the records of this step are read."""
    rates = {choice.settings.rate for choice in config.transforms if isinstance(choice.settings, SoundSettings)}
    return Reader(config.content_kind, config.label, next(iter(rates), None))


def fit_transform(config: FeaturesConfig, directory: Path, room: Room) -> Transform:
    """Fit all transforms on `train.parquet` of `directory`; no other file of it is opened."""
    reader = reader_of(config)
    train = Split(reader, directory)
    parts = []
    for label, choice in zip(config.labels, config.transforms, strict=True):
        part = Part(label, choice, fit(choice.chosen, choice.settings, train, room))
        if part.settings.scale != "none":
            blocks = (part.fitted.apply(chunk.values) for chunk in train.chunks())
            part.scale = fit_scale(part.settings.scale, blocks, len(part.fitted.names))
        parts.append(part)
        room.context.stop.leave("features start over")
    return Transform(parts, reader)


def side_by_side(blocks: Sequence[Matrix]) -> Matrix:
    """Blocks of columns as one matrix, sparse when any of them is."""
    import numpy as np
    from scipy import sparse

    if len(blocks) == 1:
        return blocks[0]
    if any(isinstance(block, sparse.csr_array) for block in blocks):
        return sparse.csr_array(sparse.hstack([sparse.csr_array(block) for block in blocks], format="csr"))
    return np.hstack(blocks)


@dataclass
class Rows:
    """Features of some records."""

    ids: list[str]
    labels: list[str | None]
    blocks: list[Matrix]
    """One per part."""
    lost: list[tuple[str, str, str]]


def applier(directory: Path) -> Applier:
    """A worker's function: the stored transform over batches of records."""
    return Applier(load_transform(directory))


@dataclass
class Applier:
    """Batches of records → features."""

    transform: Transform

    def __call__(self, batch: pyarrow.RecordBatch) -> Rows:
        chunk = self.transform.reader.decode(batch)
        blocks = [part.apply(chunk.values) for part in self.transform.parts]
        return Rows(chunk.ids, chunk.labels, blocks, chunk.lost)
