"""Sources beyond the files of this machine, as a recipe writes them.  Imports nothing heavy: `plan` reads it."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from wuxing.core.step import Config, plumbing

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_ORDERED = re.compile(r"\border\s+by\b", re.IGNORECASE)


def no_password(url: str) -> str:
    """The URL; ValueError when it holds a password instead of the name of a variable that holds it."""
    for link in url.split("::"):
        login = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)@", link)
        _, colon, password = login[1].partition(":") if login else ("", "", "")
        if colon and not _VARIABLE.fullmatch(password):
            raise ValueError("a recipe is kept with its data, so no password may stand in it; write user:${NAME}@host")
    return url


class GitSource(Config):
    """Files of a git repository at one revision.  Nothing of it is executed: no hooks, no filters, no checkout."""

    repository: str
    """A directory of this machine, or an `https://` or `file://` URL."""
    revision: str = Field(default="HEAD", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./^~@{}-]*$")
    """A commit, tag or branch.  Only a commit's full id pins the content; the corpus card records the one it was."""
    paths: tuple[str, ...] = ("**",)
    """Patterns of the files to read, such as `src/**/*.py`; `!tests/**` takes some out again."""
    max_file_bytes: int = Field(default=1 << 20, ge=1)
    """Larger files are dropped (`file_too_large`): data and generated code."""
    timeout_seconds: int = plumbing(600, ge=1)
    """How long fetching may take."""

    @field_validator("repository")
    @classmethod
    def _safe(cls, value: str) -> str:
        if "://" in value and not value.startswith(("https://", "file://")):
            raise ValueError("only https:// and file:// repositories are fetched, and directories read")
        if value.startswith("-"):
            raise ValueError("a repository cannot start with a dash")
        return no_password(value)


class SqlSource(Config):
    """The rows of one query, read in pieces.  The connection only reads."""

    url: str
    """`sqlite:///relative.db`, `sqlite:////absolute.db`; others as SQLAlchemy writes them (extra `sql` and a driver).

    `${NAME}` stands for the environment's variable: `postgresql://reader:${PGPASSWORD}@host/shop`.
    """
    query: str
    """One SELECT.  Its rows need an order, for ids that stay: ORDER BY, or `key`."""
    key: str | None = None
    """A column that is different in every row; it becomes part of the records' ids."""
    batch_rows: int = plumbing(1000, ge=1)
    """Rows fetched at a time."""

    @field_validator("url")
    @classmethod
    def _known(cls, value: str) -> str:
        if not re.match(r"[A-Za-z][A-Za-z0-9+]*://", value):
            raise ValueError("a database's URL looks like sqlite:///file.db or postgresql://user:${NAME}@host/name")
        return no_password(value)

    @model_validator(mode="after")
    def _one_select(self) -> SqlSource:
        query = self.query.strip().rstrip(";")
        if not re.match(r"(select|with|values|table|from)\b", query, re.IGNORECASE):
            raise ValueError("query must be one SELECT (or WITH, VALUES, TABLE): a source only reads")
        if ";" in re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"", "", query):
            raise ValueError("query must be one statement; it holds a semicolon")
        if self.key is None and not _ORDERED.search(query):
            raise ValueError("the rows of a query have no order of their own: add ORDER BY, or name a key column")
        return self


class HubSource(Config):
    """A data set of the Hugging Face hub, or of a server that speaks its protocol (`HF_ENDPOINT`)."""

    dataset: str = Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """`organisation/name`."""
    revision: str = Field(default="main", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")
    """A commit's full id pins the content; of a branch or tag the corpus card records the commit it was."""
    config: str | None = None
    """The configuration (subset), where the data set has several."""
    split: str | None = None
    """`train`, `test`, ...; every split unless given."""
    files: str | None = None
    """A pattern of paths in the repository, in place of `config` and `split`: `data/*.jsonl.gz`."""
    timeout_seconds: int = plumbing(60, ge=1)
    """How long the server may be silent."""

    @model_validator(mode="after")
    def _one_way(self) -> HubSource:
        if self.files and (self.config or self.split):
            raise ValueError("files names the files itself; it does not go with config or split")
        return self
