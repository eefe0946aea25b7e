"""Batches of packed tokens in the order of a sample plan."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from wuxing.core.error import WuxingError
from wuxing.data.batch import Batch
from wuxing.data.packing import Packing, Row
from wuxing.data.plan import Ladder, Phase, SamplePlan


@dataclass
class PackedSource:
    """Steps of `step_rows` rows over one data set or a weighted mixture.

    With several ranks, rank r of `ranks` gets rows r, r + ranks, ... of each step: the sequence of steps is the same
    for any number of them.  Pieces have at most `piece_rows` rows.
    """

    packings: Mapping[str, Packing]
    weights: Mapping[str, float]
    seed: int
    step_rows: int
    piece_rows: int | None = None
    rank: int = 0
    ranks: int = 1
    position: int = 0
    """The place in the plan of the next step's first row."""
    phases: Sequence[Phase] = ()
    """Other weights later on."""
    ladders: Mapping[str, Ladder] = field(default_factory=dict)
    """Data sets that begin with a curriculum."""
    ahead: int = 0
    """Steps whose batches a thread makes while the network is busy with those before."""
    pin: bool = False
    """Batches lie in pinned memory, from which a GPU fetches them beside its work."""
    figures: dict[str, float] = field(default_factory=dict)
    _coming: deque[tuple[int, Future[list[Batch]]]] = field(default_factory=deque, init=False, repr=False)

    @cached_property
    def plan(self) -> SamplePlan:
        empty = [name for name, packing in self.packings.items() if not packing.rows]
        if empty:
            raise WuxingError(f"{', '.join(empty)} has no row to train on", "Take it out of data")
        rows = {name: packing.rows for name, packing in self.packings.items()}
        digests = {name: packing.digest for name, packing in self.packings.items()}
        return SamplePlan(self.seed, rows, digests, self.weights, self.phases, self.ladders)

    @property
    def digest(self) -> str:
        return self.plan.digest

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        started = time.perf_counter()
        pieces = self._fetched() if self.ahead else self._pieces(self.position)
        self.position += self.step_rows
        self.figures = {"loader_wait_seconds": round(time.perf_counter() - started, 6)}
        return pieces

    def _pieces(self, position: int) -> list[Batch]:
        places = range(position + self.rank, position + self.step_rows, self.ranks)
        batch = self.batch(list(places))
        rows = self.piece_rows or max(1, len(batch))
        width = max(1, len(batch) // max(1, len(places)))
        pieces = batch.pieces(max(width, rows - rows % width))
        return [piece.pinned() for piece in pieces] if self.pin else pieces

    def _fetched(self) -> list[Batch]:
        """The pieces at the position, made before they were asked for; the next ones are ordered first."""
        if self._coming and self._coming[0][0] != self.position:
            self._forget()
        while len(self._coming) <= self.ahead:
            position = self.position + len(self._coming) * self.step_rows
            self._coming.append((position, self._thread.submit(self._pieces, position)))
        return self._coming.popleft()[1].result()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="loader")

    def _forget(self) -> None:
        for _, future in self._coming:
            future.cancel()
        self._coming.clear()

    def batch(self, sample_ids: list[int]) -> Batch:
        """The samples at these places of the plan."""
        places = [self.plan[sample_id] for sample_id in sample_ids]
        names = {place.data for place in places}
        found = [self.packings[place.data][place.row] for place in places]
        return make_batch(found, sample_ids, names.pop() if len(names) == 1 else "mixture")

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "plan": self.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["plan"] != self.digest:
            raise WuxingError("the checkpoint belongs to another sample plan", "Remove the step's draft to begin anew")
        self.position = int(state["position"])

    def describe(self, sample_id: int) -> list[str]:
        place = self.plan[sample_id]
        return [f"{place.data}: {name}" for name in self.packings[place.data].describe(place.row)]

    @property
    def epoch_rows(self) -> int:
        """Rows of one pass over the data; of a mixture, until its largest data set has been seen once."""
        total = sum(self.weights.values())
        return max(round(self.packings[name].rows * total / share) for name, share in self.weights.items() if share)


def make_batch(found: Sequence[Row | tuple[Row, ...]], sample_ids: list[int], task: str = "text") -> Batch:
    """Rows as tensors; the rows of one sample stand together, each with its sample's id."""
    groups = [one if isinstance(one, tuple) else (one,) for one in found]
    rows = [row for group in groups for row in group]
    ids = [sample for sample, group in zip(sample_ids, groups, strict=True) for _ in group]

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(row, name) for row in rows]))

    return Batch(
        tokens_BT=stacked("tokens_T"),
        labels_BT=stacked("labels_T"),
        positions_BT=stacked("positions_T"),
        documents_BT=stacked("documents_T").to(torch.int32),
        task=task,
        sample_ids=ids,
    )


def in_order(packing: Packing, rows_at_once: int, rows: int | None = None) -> Iterator[Batch]:
    """Every row once (or the first `rows`), in order: for validation."""
    last = min(packing.rows, rows) if rows is not None else packing.rows
    for start in range(0, last, rows_at_once):
        places = list(range(start, min(start + rows_at_once, last)))
        yield make_batch([packing[place] for place in places], places)
