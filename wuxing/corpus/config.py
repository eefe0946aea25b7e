"""A corpus, as a recipe writes it.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from pydantic import Field, model_validator

from wuxing.core.step import Config, StepConfig, plumbing
from wuxing.corpus.clean.config import CleanStep
from wuxing.source.config import SourceConfig

MOST_STEPS = 64
"""What a record was changed by is kept as one bit per step."""


class DuplicatesConfig(Config):
    """Which of several equal or nearly equal records is kept: the first in the order of the sources."""

    exact: bool = True
    """Drop records that are equal but for case and space: `duplicate`."""
    near_jaccard: float | None = Field(default=None, gt=0.3, le=1)
    """Drop documents that share at least this part of their shingles with a kept one: `near_duplicate`; None: keep."""
    shingle_words: int = Field(default=5, ge=1, le=16)
    """Words in a shingle (characters in scripts without spaces); more lets fewer documents pass as near duplicates."""
    hashes: int = Field(default=128, ge=16, le=1024)
    """Values in a MinHash signature; the error of a similarity J is sqrt(J (1 - J) / hashes)."""
    substring_tokens: int | None = Field(default=None, ge=10)
    """Cut out of documents what stood before: runs of so many words (characters in scripts without spaces), 50 in the
    paper (Lee et al. 2021); what has too little left leaves: `substring_duplicate`.  None: nothing is cut."""
    near_image_bits: int | None = Field(default=None, ge=0, le=16)
    """Drop images whose perceptual hash differs in at most so many of 64 bits from a kept one's (10 finds what was
    resized or encoded anew): `near_duplicate`; None: keep."""
    near_audio_bits: int | None = Field(default=None, ge=0, le=16)
    """The same for sounds."""
    likeness: float = Field(default=0.99, gt=0, le=1)
    """Least correlation of the 8 x 8 sketches of two images or sounds that count as nearly the same.

    Lower finds what was scaled more, and takes more pictures of one kind of thing for one picture.
    """


class SplitConfig(Config):
    """Shares of the records that are held out, chosen by a hash of their content: new data never moves old records."""

    validation: float = Field(ge=0, le=0.5)
    """Share for choosing: early stopping, settings."""
    test: float = Field(ge=0, le=0.5)
    """Share for the final word."""


class CardConfig(Config):
    """What only a person can say of a corpus; the data card and the report print it."""

    about: str | None = None
    """What the data are, and why they were collected."""
    uses: str | None = None
    """What they are meant for, and what not."""
    limits: str | None = None
    """Known gaps, biases and risks."""
    contact: str | None = None
    """Who answers questions."""
    citation: str | None = None
    """How to cite them."""


class CorpusConfig(StepConfig):
    """Read sources, clean them, drop duplicates, split; every raw record ends with exactly one fate."""

    sources: tuple[SourceConfig, ...]
    """Where the records come from, in the order that decides which duplicate is kept."""
    clean: tuple[CleanStep, ...] = ()
    """The cleaning steps, in order."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    """Which duplicates go."""
    split: SplitConfig
    """What is held out."""
    card: CardConfig = CardConfig()
    """What a person says of the corpus."""
    dropped_samples: int = Field(default=20, ge=0)
    """Records per fate that `dropped.parquet` keeps, and per step that `changed.parquet` keeps, to look at."""
    workers: int | None = plumbing(None, ge=1)
    """Processes that clean; as many as the machine has cores unless given.  The result does not depend on it."""

    @model_validator(mode="after")
    def _sources(self) -> CorpusConfig:
        if len(self.clean) > MOST_STEPS:
            raise ValueError(f"clean has {len(self.clean)} steps; at most {MOST_STEPS} can be told apart")
        if not self.sources:
            raise ValueError("sources is empty; a corpus needs at least one")
        labels = [source.label for source in self.sources]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f'two sources are called "{label}"; give each a name of its own')
        return self

    @property
    def redacts(self) -> bool:
        """Whether private data are replaced."""
        return any(step.privacy for step in self.clean)
