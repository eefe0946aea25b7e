"""In which order a run meets its data: phases of the mixture, and a curriculum inside a data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from wuxing.core.error import WuxingError
from wuxing.core.step import Config
from wuxing.train.plan.ramp import LengthStage, first_sample

if TYPE_CHECKING:
    from wuxing.data.packing import Packing
    from wuxing.data.plan import Ladder, Phase, Stage


class DataPhase(Config):
    """Other shares of the data sets from some moment of the run on."""

    after: float = Field(gt=0, lt=1)
    """Share of the run's steps that come before it: 0.9 is the last tenth."""
    data: dict[str, float] = Field(min_length=1)
    """Data sets of `data` → share of the rows; those that are left out rest."""


class Adapt(Config):
    """Shares of the data sets that follow their held-out losses."""

    rule: Literal["progress", "excess"] = "progress"
    """`progress` gives more to what its loss shows to be learnt, or forgotten, just now; `excess` to what lies above a
    reference model (DoReMi)."""
    reference: str | None = None
    """`excess`: a smaller model with the same tokenizer, trained on the same data sets."""
    times: int = Field(default=20, ge=2)
    """How often the losses are looked at, the start included."""
    tokens: int = Field(default=1 << 14, gt=0)
    """At most so many positions of each data set's `validation` split each time; more cost time and measure better."""
    strength: float = Field(default=1.0, gt=0)
    """Larger follows the losses more: the factor of the excess, or the power of the progress."""
    inertia: float = Field(default=0.5, ge=0, lt=1)
    """Share of the old shares in the new ones."""
    min_share: float = Field(default=0.05, ge=0.01, le=0.5)
    """No data set falls below it: what is learnt stays so."""

    @model_validator(mode="after")
    def _reference(self) -> Adapt:
        if (self.rule == "excess") != (self.reference is not None):
            raise ValueError("mixture.reference belongs to rule: excess, which needs it")
        return self


class Curriculum(Config):
    """Rows of each data set in buckets by a number, the lowest first; shuffled inside a bucket."""

    by: str = "length"
    """`length` (ids of the documents in a row, on the mean), or the name of a number in the records' meta."""
    descending: bool = False
    """The highest first."""
    buckets: int = Field(default=8, ge=2, le=1000)
    """More follow the order more closely and mix less."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the data that are ordered; later ones are shuffled as a whole."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Numbers of the meta that the tokens must hold."""
        return () if self.by == "length" else (self.by,)


def ladders(curriculum: Curriculum | None, packings: Mapping[str, Packing]) -> dict[str, Ladder]:
    """The order of each data set; none without a curriculum."""
    from wuxing.data.plan import Ladder

    if curriculum is None:
        return {}
    c = curriculum
    return {name: Ladder(p.scores(c.by), c.buckets, c.epochs, c.descending) for name, p in packings.items()}


def phases(wanted: tuple[DataPhase, ...], steps: int, stages: Sequence[Stage], step_rows: int) -> tuple[Phase, ...]:
    """The phases by the place of their first sample, for a run of so many steps."""
    from wuxing.data.plan import Phase

    found = {first_sample(stages, step_rows, max(1, round(phase.after * steps))): phase.data for phase in wanted}
    return tuple(Phase(start, data) for start, data in sorted(found.items()))


def refuse_torn(ramp: Collection[LengthStage], packings: Mapping[str, Packing]) -> None:
    """Raises WuxingError where shorter rows would tear documents that were packed whole."""
    from wuxing.data.packing import Blocks

    whole = [name for name, packing in packings.items() if not isinstance(packing, Blocks)]
    if ramp and whole:
        remedy = "Take length_ramp out, or train on them in a step of its own"
        raise WuxingError(f"{whole[0]} holds whole documents, which the shorter rows of length_ramp would tear", remedy)


def contradiction(data: Mapping[str, float], wanted: tuple[DataPhase, ...]) -> str:
    """What is wrong with the shares and phases of a recipe; empty when nothing is."""
    for phase in wanted:
        for name, share in phase.data.items():
            if name not in data:
                return f"phases name {name}, which is not in data: give it there, with share 0 if it comes later"
            if share <= 0:
                return f"the share of {name} in phases is {share:g}: it must be above 0, or be left out"
    if [phase.after for phase in wanted] != sorted({phase.after for phase in wanted}):
        return "phases must come one after the other: sort them by after"
    later = {name for phase in wanted for name in phase.data}
    for name, share in data.items():
        if share < 0 or (share == 0 and name not in later):
            return f"the share of {name} in data is {share:g}: it must be above 0"
    return "" if any(share > 0 for share in data.values()) or not data else "every share in data is 0: give one"
