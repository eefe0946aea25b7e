"""Cleaning steps that filter by what they learn first, by lists, or by other data.  Imports nothing heavy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from wuxing.core.step import Config, Parent, plumbing
from wuxing.source.config import SourceConfig

Examples = str | SourceConfig
"""A corpus by its name in the recipe or the store, or a source as a corpus would have it."""


class FilterConfig(Config):
    """A step that may read more than the records it cleans."""

    learns: ClassVar[bool] = False
    """Whether its module has a `fit` that runs before any record is cleaned."""

    def parents(self) -> dict[str, Parent]:
        """Artifacts that it reads, by reference."""
        return {}

    def sources(self) -> tuple[SourceConfig, ...]:
        """Sources that it reads besides the corpus's own."""
        return ()

    def files(self) -> tuple[str, ...]:
        """Files that it reads."""
        return ()

    def libraries(self) -> tuple[str, ...]:
        """Distributions whose version decides what it does."""
        return ()


class BoilerplateConfig(FilterConfig):
    """Remove lines that stand in many documents (menus, notices, licence headers) or that only a page's frame has.

    The lines of the whole corpus are counted once before the cleaning, each once per document; case, space and digits
    make no difference (`Page 3 of 10` is `Page 4 of 12`).
    """

    learns: ClassVar[bool] = True
    min_documents: int | None = Field(default=20, ge=2)
    """A line goes when at least so many documents hold it ...; None: lines are not counted, only the rules apply."""
    min_share: float = Field(default=0.001, ge=0, le=1)
    """... and at least this share of all documents."""
    short_line_characters: int = Field(default=24, ge=0)
    """A shorter line may be a heading: it goes only beside another line that goes.  A character of a script without
    spaces counts as three."""
    code: bool = False
    """Also remove lines that look like code: indented, or ending in a bracket, a comma or a semicolon."""
    unit: Literal["line", "paragraph"] = "line"
    """What is counted and removed: single lines, or whole paragraphs (between empty lines): safer for code."""
    rules: bool = True
    """Also remove short lines that are a notice on cookies, JavaScript, terms, rights or sharing, or navigation, in
    English and Chinese."""
    max_removed: float = Field(default=0.9, ge=0, le=1)
    """A document that loses a larger share of its characters leaves: `boilerplate`."""


class ChineseConfig(FilterConfig):
    """Traditional and simplified script, full width, half-translated pages; writes `meta.script` of Chinese texts."""

    to: Literal["simplified", "traditional", "taiwan", "hongkong"] | None = None
    """Convert Chinese texts to this script by OpenCC's phrases (頭髮 → 头发, 發現 → 发现); None: as they are."""
    width: Literal["letters", "all"] | None = None
    """Full-width characters become half-width: letters and digits (ＡＢＣ１ → ABC1), or `all`, with ，！？（）;
    None: they stay."""
    min_han_ratio: float = Field(default=0.0, ge=0, le=1)
    """A Chinese document with a smaller share of Chinese prose leaves: `half_translated`; 0.6 suits translated pages.
    Prose is Han characters, and lines of words in another script, each word worth 1.6 characters; names, code and terms
    among Chinese do not count."""
    foreign_han_ratio: float = Field(default=0.02, ge=0, le=1)
    """A document with a smaller share of Han among its letters is held to be in another language, and passes."""

    def libraries(self) -> tuple[str, ...]:
        return ("opencc",)


class _Trained(FilterConfig):
    learns: ClassVar[bool] = True
    good: Examples
    """What good text looks like: a corpus (its train split) or a source."""
    languages: tuple[str, ...] = ()
    """Judge only documents that `language` found to be one of these; others pass.  Empty: all are judged."""
    sample: int = Field(default=5000, ge=100)
    """Documents at most that are learnt from, of each kind: those with the least hash, so the order does not matter."""

    def parents(self) -> dict[str, Parent]:
        return {name: Parent(name, ("corpus",), ("train.parquet",)) for name in _names(self._examples())}

    def sources(self) -> tuple[SourceConfig, ...]:
        return tuple(one for one in self._examples() if isinstance(one, SourceConfig))

    def libraries(self) -> tuple[str, ...]:
        return ("scikit-learn",)

    def _examples(self) -> tuple[Examples, ...]:
        return (self.good,)


class ClassifyConfig(_Trained):
    """Keep what a classifier, trained on the spot, takes for good text: logistic regression on hashed words and pairs.

    Refused when its area under the ROC curve on documents it has not seen cannot be told from chance.
    """

    bad: Examples | None = None
    """What is not good; a sample of the corpus itself when left out (as for GPT-3's filter)."""
    keep: float | None = Field(default=None, gt=0, lt=1)
    """Share of the corpus to keep, the best first; 0.7 when neither this nor `min_score` is given."""
    min_score: float | None = Field(default=None, gt=0, lt=1)
    """Or: the least probability of being good, on a scale calibrated on unseen documents, half of them good."""

    def _examples(self) -> tuple[Examples, ...]:
        return (self.good,) if self.bad is None else (self.good, self.bad)

    @model_validator(mode="after")
    def _one_bound(self) -> ClassifyConfig:
        if self.keep is not None and self.min_score is not None:
            raise ValueError("keep and min_score contradict each other; give one")
        return self


class PerplexityConfig(_Trained):
    """Drop what an n-gram model of good text finds too surprising: interpolated Kneser-Ney over words or characters."""

    keep_good: float = Field(default=0.95, gt=0, lt=1)
    """The bound is this quantile of the perplexity of good documents that the model has not seen."""
    keep: float | None = Field(default=None, gt=0, lt=1)
    """Or: the share of the corpus to keep, the least surprising first."""
    max_perplexity: float | None = Field(default=None, gt=1)
    """Or: the bound itself, per word (character in scripts without spaces)."""
    order: int = Field(default=5, ge=2, le=6)
    """Words (characters) that are looked at together."""
    min_words: int = Field(default=10, ge=1)
    """Shorter documents pass: their perplexity says little."""
    read_words: int = Field(default=1000, ge=10)
    """How much of a document is judged, from its beginning."""

    @model_validator(mode="after")
    def _one_bound(self) -> PerplexityConfig:
        bounds = [name for name in ("keep_good", "keep", "max_perplexity") if name in self.model_fields_set]
        if len(bounds) > 1:
            raise ValueError(f"{' and '.join(bounds)} contradict each other; give one")
        return self


class ToxicityConfig(FilterConfig):
    """Drop texts that hold words of a list: whole words where words stand between spaces, anywhere in other scripts."""

    list: str = plumbing(...)
    """A text file, one word or phrase a line; `#` begins a comment.  Its content decides the version, not its path."""
    max_hits: int | None = Field(default=None, ge=0)
    """More hits: `toxic`; 0 when neither this nor `max_share` is given."""
    max_share: float | None = Field(default=None, ge=0, le=1)
    """A larger share of the text's words inside hits: `toxic`."""
    leet: bool = False
    """Also find words written with digits and signs for letters (`w0rd`, `$ign`)."""

    def files(self) -> tuple[str, ...]:
        return (self.list,)


class PlaceholderConfig(FilterConfig):
    """Drop documents that only say that there is nothing: `N/A`, `null`, `-`, `暂无`."""

    words: tuple[str, ...] = ()
    """More of them; case and the space, dots and brackets around make no difference."""
    turns: bool = False
    """Also drop dialogues with such a turn: there, `none` may be an answer."""


class DecontaminateConfig(FilterConfig):
    """Remove what evaluation sets ask: records that share a run of words with one of their items.

    Words are compared without case and punctuation; in scripts without spaces each character is a word.
    """

    learns: ClassVar[bool] = True
    against: tuple[Examples, ...]
    """Tasks and corpora (by their names in the recipe or the store) and sources that models are judged on."""
    splits: tuple[Literal["train", "validation", "test"], ...] = ("validation", "test")
    """The splits of tasks and corpora that must not be trained on."""
    ngram_words: int = Field(default=13, ge=3, le=16)
    """Length of a run: 13 as for GPT-3, 8 is stricter."""
    min_share: float = Field(default=0.0, ge=0, le=1)
    """A record must hold at least this share of an item's runs (one of them in any case)."""
    short_words: int = Field(default=8, ge=1)
    """An item with fewer words than a run, but with so many, is looked for as a whole anywhere in a text; one that is
    shorter still only as a whole text, turn, line or sentence, signs of arithmetic included."""
    action: Literal["drop", "cut"] = "drop"
    """Drop the record (`contaminated`), or cut the runs out of it."""
    min_left_words: int = Field(default=20, ge=0)
    """With `cut`: a record with less left leaves as well."""

    @field_validator("against")
    @classmethod
    def _some(cls, against: tuple[Examples, ...]) -> tuple[Examples, ...]:
        if not against:
            raise ValueError("against is empty; name the tasks, corpora or sources that models are judged on")
        return against

    @model_validator(mode="after")
    def _lengths(self) -> DecontaminateConfig:
        if self.short_words > self.ngram_words:
            raise ValueError("short_words is longer than a run (ngram_words)")
        if not self.splits:
            raise ValueError("splits is empty")
        return self

    def parents(self) -> dict[str, Parent]:
        members = ("task.json", *(f"{split}.parquet" for split in self.splits))
        return {name: Parent(name, ("task", "corpus"), members) for name in _names(self.against)}

    def sources(self) -> tuple[SourceConfig, ...]:
        return tuple(one for one in self.against if isinstance(one, SourceConfig))


def _names(examples: tuple[Examples, ...]) -> list[str]:
    return [one for one in examples if isinstance(one, str)]
