"""Batches of packed tokens in the order of a sample plan."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from wuxing.core.error import WuxingError
from wuxing.data.batch import BATCH_SHARE, Batch
from wuxing.data.packing import Packing, Row
from wuxing.data.plan import Ladder, Phase, SamplePlan, Stage

SAME_PIECES = 8
"""Of a step, at least, where it has as many rows: up to so many processes find something to do in it."""


@dataclass
class PackedSource:
    """Steps of `step_rows` rows, or of fewer at first, over one data set or a weighted mixture.

    With several ranks, rank r of `ranks` gets rows r, r + ranks, ... of each step: the sequence of steps is the same
    for any number of them.  Pieces have at most `piece_rows` rows.  With `same_pieces` a step is cut into the same
    pieces for any number of ranks, and rank r gets pieces r, r + ranks, ...
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
    stages: Sequence[Stage] = ()
    """Smaller steps, or shorter rows, on the way to `step_rows` whole ones; empty: all steps are equal."""
    ladders: Mapping[str, Ladder] = field(default_factory=dict)
    """Data sets that begin with a curriculum."""
    change: Callable[[Batch], Batch] | None = None
    """What becomes of a batch before it is cut: a mask.  It may depend on the rows and their places in the plan."""
    ahead: int = 0
    """Steps whose batches a thread makes while the network is busy with those before."""
    pin: bool = False
    """Batches lie in pinned memory, from which a GPU fetches them beside its work."""
    events: list[Phase] = field(default_factory=list)
    """Weights that were changed while the run went on, each from a place of the plan on."""
    same_pieces: bool = False
    """The same pieces for any number of ranks."""
    figures: dict[str, float] = field(default_factory=dict)
    _coming: deque[tuple[int, Future[list[Batch]]]] = field(default_factory=deque, init=False, repr=False)

    @cached_property
    def plan(self) -> SamplePlan:
        empty = [name for name, packing in self.packings.items() if not packing.rows]
        if empty:
            raise WuxingError(f"{', '.join(empty)} has no row to train on", "Take it out of data")
        rows = {name: packing.rows for name, packing in self.packings.items()}
        digests = {name: packing.digest for name, packing in self.packings.items()}
        whole = {phase.start: phase for phase in (*self.phases, *self.events)}
        phases = [whole[start] for start in sorted(whole)]
        return SamplePlan(self.seed, rows, digests, self.weights, phases, self.ladders)

    @property
    def digest(self) -> str:
        return self.plan.digest

    @cached_property
    def begun_as(self) -> str:
        """The digest of the plan as the recipe has it, whatever changed on the way."""
        return replace(self.plan, phases=self.phases).digest if self.events else self.plan.digest

    def weights_at(self, position: int) -> Mapping[str, float]:
        """The weights of the mixture at a place of the plan."""
        found = self.weights
        for phase in self.plan.phases:
            found = phase.weights if phase.start <= position else found
        return found

    def mix(self, weights: Mapping[str, float]) -> None:
        """Other weights from the position on; later phases of the recipe stay."""
        before = [event for event in self.events if event.start < self.position]
        self._go_on_with([*before, Phase(self.position, dict(weights))])

    def _go_on_with(self, events: list[Phase]) -> None:
        self.events = events
        self.__dict__.pop("plan", None)
        self._forget()

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        started = time.perf_counter()
        pieces = self._fetched() if self.ahead else self._pieces(self.position)
        stage = self.stage(self.position)
        self.position += stage.rows
        self.figures = {"loader_wait_seconds": round(time.perf_counter() - started, 6)}
        if self.stages:
            self.figures[BATCH_SHARE] = round(stage.rows / self.step_rows, 6)
            self.figures["row_share"] = round(1 / stage.parts, 6)
        if self.events:
            weights = self.weights_at(self.position - stage.rows)
            total = sum(weights.values())
            self.figures |= {f"share/{name}": round(weight / total, 6) for name, weight in weights.items()}
        return pieces

    def stage(self, position: int) -> Stage:
        """How large the step is that begins at a place of the plan."""
        found = Stage(0, self.step_rows)
        for stage in self.stages:
            found = stage if stage.start <= position else found
        return found

    def _pieces(self, position: int) -> list[Batch]:
        stage = self.stage(position)
        if self.same_pieces:
            cut = [self.batch(list(places)).cut(stage.parts) for places in self._same_places(position, stage.rows)]
            return [piece.pinned() for piece in cut] if self.pin else cut
        places = range(position + self.rank, position + stage.rows, self.ranks)
        if not places:  # fewer rows than ranks
            return []
        batch = self.batch(list(places)).cut(stage.parts)
        rows = (self.piece_rows or len(places)) * stage.parts
        width = max(1, len(batch) // len(places))
        pieces = batch.pieces(max(width, rows - rows % width))
        return [piece.pinned() for piece in pieces] if self.pin else pieces

    def _same_places(self, position: int, rows: int) -> list[range]:
        """This rank's pieces of a step that is cut alike for any number of ranks."""
        most = max(1, rows // SAME_PIECES)
        size, end = min(self.piece_rows or most, most), position + rows
        return [
            range(start, min(start + size, end)) for start in range(position + self.rank * size, end, self.ranks * size)
        ]

    def _fetched(self) -> list[Batch]:
        """The pieces at the position, made before they were asked for; the next ones are ordered first."""
        if self._coming and self._coming[0][0] != self.position:
            self._forget()
        while len(self._coming) <= self.ahead:
            last = self._coming[-1][0] if self._coming else None
            position = self.position if last is None else last + self.stage(last).rows
            self._coming.append((position, self._thread.submit(self._pieces, position)))
        return self._coming.popleft()[1].result()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="loader")

    def begin_stages(self, stages: Sequence[Stage]) -> None:
        """Other sizes of steps; what was made ahead is forgotten."""
        self.stages = stages
        self._forget()

    def _forget(self) -> None:
        for _, future in self._coming:
            future.cancel()
        self._coming.clear()

    def batch(self, sample_ids: list[int]) -> Batch:
        """The samples at these places of the plan."""
        places = [self.plan[sample_id] for sample_id in sample_ids]
        names = {place.data for place in places}
        found = [self.packings[place.data][place.row] for place in places]
        batch = make_batch(found, sample_ids, names.pop() if len(names) == 1 else "mixture")
        return batch if self.change is None else self.change(batch)

    def state_dict(self) -> dict[str, Any]:
        events = [[event.start, dict(event.weights)] for event in self.events]
        return {"position": self.position, "plan": self.begun_as, "events": events}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["plan"] != self.begun_as:
            raise WuxingError("the checkpoint belongs to another sample plan", "Remove the step's draft to begin anew")
        self.position = int(state["position"])
        self._go_on_with([Phase(start, weights) for start, weights in state.get("events", [])])

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
