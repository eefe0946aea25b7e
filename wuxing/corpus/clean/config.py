"""The cleaning steps, as a recipe writes them.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wuxing.core.step import Choice, Config

PrivateKind = Literal["mail", "phone", "ip", "card", "id_cn", "key"]
PRIVATE_KINDS: tuple[PrivateKind, ...] = ("mail", "phone", "ip", "card", "id_cn", "key")


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
    max_duplicate_lines: float = 0.3
    """Share of lines that stood before: `repeated_lines`."""
    max_duplicate_line_characters: float = 0.2
    """The same in characters: `repeated_lines`."""
    max_top_2gram: float = 0.20
    """Share of characters in the most frequent run of 2 words: `repeated_2gram`."""
    max_top_3gram: float = 0.18
    """The same of 3 words: `repeated_3gram`."""
    max_top_4gram: float = 0.16
    """The same of 4 words: `repeated_4gram`."""
    max_repeated_5gram: float = 0.15
    """Share of words inside any run of 5 words that occurs twice: `repeated_5gram`."""
    max_repeated_10gram: float = 0.10
    """The same for 10 words: `repeated_10gram`."""


class PrivacyConfig(Config):
    """Replace private data by their kind, such as `<mail>`."""

    kinds: tuple[PrivateKind, ...] = PRIVATE_KINDS
    """mail, phone, ip (not of the machine itself), card (with Luhn's digit), id_cn (with its check digit), key."""


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
    privacy: PrivacyConfig | None = None
    """Replace private data by their kind."""
