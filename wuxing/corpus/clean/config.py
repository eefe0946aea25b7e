"""The cleaning steps, as a recipe writes them.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from wuxing.core.step import Choice, Config
from wuxing.corpus.clean.filter_config import (
    BoilerplateConfig,
    ChineseConfig,
    ClassifyConfig,
    DecontaminateConfig,
    PerplexityConfig,
    PlaceholderConfig,
    ToxicityConfig,
)
from wuxing.corpus.clean.media_config import (
    AudioConfig,
    ImageConfig,
    StandardiseAudioConfig,
    StandardiseImageConfig,
    VoiceConfig,
)

PrivateKind = Literal["mail", "phone", "ip", "card", "iban", "id_cn", "ssn_us", "plate_cn", "key"]
PRIVATE_KINDS: tuple[PrivateKind, ...] = get_args(PrivateKind)


class RepairConfig(Config):
    """Undo text that was read in the wrong encoding (`schÃ¶n` → `schön`), where a pattern shows it."""


class NormaliseConfig(Config):
    """Unicode form, line ends, space at line ends, control and invisible characters."""

    form: Literal["NFC", "NFKC"] = "NFC"
    """NFC keeps what is seen; NFKC also folds full-width letters, ligatures and superscripts."""
    max_blank_lines: int = Field(default=1, ge=0)
    """Blank lines in a row that are kept."""


class LanguageConfig(Config):
    """Identify the language of documents; with `keep`, drop the others (`wrong_language`, `unsure_language`)."""

    keep: tuple[str, ...] | None = None
    """ISO 639 codes as fastText's lid.176 knows them: en, zh, ja, ...; all when left out."""
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """With `keep`: a document is dropped below this probability."""
    min_confidence_of: dict[str, float] = {}
    """Other bounds for single languages, such as `{ja: 0.8}`; each must be one that is kept."""

    @model_validator(mode="after")
    def _bounds(self) -> LanguageConfig:
        for language in set(self.min_confidence_of) - set(self.keep or ()):
            raise ValueError(f'min_confidence_of bounds "{language}", which keep does not name')
        return self


class QualityConfig(Config):
    """Statistics of single documents (Gopher's rules, FineWeb's line rules), counted in words.

    In scripts without spaces each character is a word; bounds on word length and stop words do not apply there.
    """

    min_words: int = Field(default=50, ge=0)
    """Fewer words: `too_short`."""
    max_words: int = Field(default=100_000, ge=1)
    """More words: `too_long`."""
    min_mean_word_characters: float = 3.0
    """Shorter words on average: `short_words`."""
    max_mean_word_characters: float = 10.0
    """Longer words on average: `long_words`."""
    max_symbol_ratio: float = 0.1
    """More `#` and `…` per word: `too_many_symbols`."""
    min_alpha_ratio: float = 0.8
    """Smaller share of words with a letter: `too_few_letters`."""
    min_stop_words: int = 2
    """Fewer different function words of the language (English, Chinese): `too_few_stop_words`; 0 for others."""
    max_bullet_lines: float = 0.9
    """Larger share of lines that start with a bullet: `bullet_list`."""
    max_ellipsis_lines: float = 0.3
    """Larger share of lines that end in an ellipsis: `cut_lines`."""
    min_ended_lines: float = 0.12
    """Smaller share of lines that end with a punctuation mark: `no_sentences`."""


class RepetitionConfig(Config):
    """Shares of a document that repeat (Gopher, Rae et al. 2021, table A1)."""

    min_words: int = Field(default=100, ge=0)
    """Shorter documents are judged by their lines only: a name said three times in 40 words is no sign of spam."""
    max_duplicate_lines: float = 0.30
    """Share of lines that stood before: `repeated_lines`."""
    max_duplicate_line_characters: float = 0.20
    """The same in characters: `repeated_lines`."""
    max_duplicate_paragraphs: float = 0.30
    """Share of paragraphs (between empty lines) that stood before: `repeated_paragraphs`."""
    max_duplicate_paragraph_characters: float = 0.20
    """The same in characters: `repeated_paragraphs`."""
    max_top_2gram: float = 0.20
    """Share of characters in the most frequent run of 2 words: `repeated_2gram`."""
    max_top_3gram: float = 0.18
    """The same of 3 words: `repeated_3gram`."""
    max_top_4gram: float = 0.16
    """The same of 4 words: `repeated_4gram`."""
    max_repeated_5gram: float = 0.15
    """Share of characters inside runs of 5 words that occurred before: `repeated_5gram`."""
    max_repeated_6gram: float = 0.14
    """The same for 6 words: `repeated_6gram`."""
    max_repeated_7gram: float = 0.13
    """The same for 7 words: `repeated_7gram`."""
    max_repeated_8gram: float = 0.12
    """The same for 8 words: `repeated_8gram`."""
    max_repeated_9gram: float = 0.11
    """The same for 9 words: `repeated_9gram`."""
    max_repeated_10gram: float = 0.10
    """The same for 10 words: `repeated_10gram`."""


class FineWebConfig(Config):
    """FineWeb's own rules on lines (Penedo et al. 2024, section 3.6), for pages from the web after `quality`."""

    min_ended_lines: float = 0.12
    """Smaller share of lines that end with a punctuation mark: `no_sentences`."""
    max_short_lines: float = 0.67
    """Larger share of short lines: `short_lines`."""
    short_line_characters: int = Field(default=30, ge=0)
    """A line is short up to here; a character of a script without spaces counts as three."""
    max_duplicate_line_characters: float = 0.1
    """Larger share of characters in lines that stood before: `repeated_lines`."""
    max_newlines_per_word: float = 0.3
    """More line ends per word: `too_many_lines`; words are characters in scripts without spaces."""


class C4Config(Config):
    """C4's rules (Raffel et al. 2020, section 2.2): bad lines go, then documents with a bad sign or too little left."""

    terminal_marks: bool = True
    """Lines that do not end in a full stop, a question or exclamation mark or a quotation mark go."""
    min_line_words: int = Field(default=3, ge=0)
    """Lines with fewer words go (characters in scripts without spaces)."""
    max_word_characters: int = Field(default=1000, ge=1)
    """Lines with a longer word go."""
    line_phrases: tuple[str, ...] = (
        *("javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies"),
        *("use cookies", "隐私政策", "隱私政策", "使用条款", "使用條款", "服务条款", "服務條款"),
    )
    """Lines that hold one of these go; ASCII letters match in either case."""
    document_phrases: tuple[str, ...] = ("lorem ipsum", "{")
    """Documents that hold one of these leave: `bad_phrase`."""
    min_sentences: int = Field(default=5, ge=0)
    """Documents with fewer sentences left: `too_few_sentences`."""

    @field_validator("line_phrases", "document_phrases")
    @classmethod
    def _phrases(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if not all(phrases):
            raise ValueError("an empty phrase stands in every line")
        return phrases


class PrivacyConfig(Config):
    """Replace private data by their kind, such as `<mail>`."""

    kinds: tuple[PrivateKind, ...] = PRIVATE_KINDS
    """mail, phone, ip (not of the machine itself), card (Luhn's digit fits), iban (bank account; check digits fit),
    id_cn (check digit fits), ssn_us, plate_cn (of a car), key (of an API, or a private key)."""
    replacement: str = "<{kind}>"
    """What is put in its place; `{kind}` becomes the kind."""

    @field_validator("replacement")
    @classmethod
    def _replacement(cls, text: str) -> str:
        left = text.replace("{kind}", "")
        if "{" in left or "}" in left:
            raise ValueError('replacement knows one placeholder, "{kind}"')
        return text


class CleanStep(Choice):
    """One cleaning step: exactly one of these names, with its settings; a bare name takes the settings' defaults."""

    repair: RepairConfig | None = None
    """Mend text that was read in a wrong encoding."""
    normalise: NormaliseConfig | None = None
    """One Unicode form, no invisible characters."""
    language: LanguageConfig | None = None
    """Identify languages, and keep some."""
    quality: QualityConfig | None = None
    """Drop documents by counted facts."""
    repetition: RepetitionConfig | None = None
    """Drop documents that repeat themselves."""
    fineweb: FineWebConfig | None = None
    """Drop documents by FineWeb's rules on lines."""
    c4: C4Config | None = None
    """Drop lines and documents by C4's rules."""
    privacy: PrivacyConfig | None = None
    """Replace private data by their kind."""
    placeholder: PlaceholderConfig | None = None
    """Drop documents that only say that there is nothing."""
    boilerplate: BoilerplateConfig | None = None
    """Remove lines that stand in many documents, notices and navigation."""
    chinese: ChineseConfig | None = None
    """Simplified and traditional script, full width, half-translated pages."""
    classify: ClassifyConfig | None = None
    """Keep what a classifier, trained on the spot, takes for good text."""
    perplexity: PerplexityConfig | None = None
    """Drop what surprises a model of good text."""
    toxicity: ToxicityConfig | None = None
    """Drop texts that hold words of a list."""
    decontaminate: DecontaminateConfig | None = None
    """Remove what evaluation sets ask."""
    image: ImageConfig | None = None
    """Decode pictures; drop broken, small, blurred, empty ones."""
    standardise_image: StandardiseImageConfig | None = None
    """One format, mode and size of pictures, without metadata."""
    audio: AudioConfig | None = None
    """Decode sounds; drop broken, short, silent, clipped ones."""
    voice: VoiceConfig | None = None
    """Find speech in sounds; drop what holds none, cut what lies around it."""
    standardise_audio: StandardiseAudioConfig | None = None
    """One rate, channel and format of sounds."""
