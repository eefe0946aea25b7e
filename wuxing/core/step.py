"""Step kinds: how a recipe's `make: corpus` becomes an artifact.  Declared here, executed by `core/run.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.evidence import Evidence


class Config(BaseModel):
    """Base of every part of a recipe: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def plumbing(default: Any, **options: Any) -> Any:
    """A field that says how or where, never what: it does not enter the fingerprint."""
    return Field(default, json_schema_extra={"fingerprint": False}, **options)


class Choice(Config):
    """One of several things, each with its settings: `{grpo: {clip: 0.2}}`, or its bare name for the defaults."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {name: {} if settings is None else settings for name, settings in value.items()}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            given = " and ".join(sorted(self.model_fields_set)) or "none"
            *others, last = type(self).model_fields
            raise ValueError(f"one of {', '.join(others)} or {last} must stand here; {given} given")
        return self

    @property
    def chosen(self) -> str:
        """The name of the one that was chosen."""
        return next(iter(self.model_fields_set))

    @property
    def settings(self) -> Config:
        """The settings of the one that was chosen."""
        found: Config = getattr(self, self.chosen)
        return found

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = handler.resolve_ref_schema(handler(schema))
        written["minProperties"] = written["maxProperties"] = 1
        return {"anyOf": [{"enum": list(cls.model_fields)}, written]}


class StepConfig(Config):
    """Keys that every step has."""

    make: str
    """The kind of artifact to make."""
    name: str | None = plumbing(None)
    """The artifact's name in the store; the step's name unless given."""

    @classmethod
    def shape(cls, value: Mapping[str, Any]) -> type[StepConfig]:
        """The class whose keys apply to a step as written, for a kind whose keys depend on one of its words."""
        return cls


@dataclass(frozen=True)
class Parent:
    """An artifact that a step reads: a step of the recipe, or a reference into the store."""

    reference: str
    kinds: tuple[str, ...]
    """The kinds of artifact that may stand here."""
    members: tuple[str, ...] = ()
    """When given, only these files (names or `directory/*` patterns) of the parent decide the child's fingerprint."""


@dataclass
class Draft:
    """The directory in which a step writes.  After a kill it still holds what was written, if the kind is resumable."""

    path: Path
    kind: str
    name: str
    fingerprint: str
    seed: int
    evidence: Evidence = field(default_factory=Evidence)
    summary: dict[str, Any] = field(default_factory=dict)
    """Headline figures for people: the run's last screen, `show` and the report print them."""

    def file(self, name: str) -> Path:
        """The path of a file to write; its directory is made."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


C = TypeVar("C", bound=StepConfig)


class StepKind(Generic[C]):
    """What a kind of step promises.  One instance per kind, stateless; heavy libraries are imported inside `make`.

    Subclasses set the class variables and implement `make`; `parents` where the config refers to artifacts.
    """

    kind: ClassVar[str]
    """The word after `make:`, and the first part of the artifact's id."""
    Config: ClassVar[type[StepConfig]]
    code: ClassVar[int] = 1
    """Raised when the same config and parents would now give other content."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose version decides the content."""
    required: ClassVar[tuple[str, ...]] = ()
    """Evidence that must be there."""
    volatile: ClassVar[tuple[str, ...]] = ()
    """Patterns of files that no child reads as content (logs, timings), besides `evidence.json`, `summary.json`."""
    resumable: ClassVar[bool] = False
    """Whether `make` goes on from what a killed attempt left in the draft; otherwise the draft is emptied first."""

    def parents(self, config: C) -> Mapping[str, Parent]:
        """Role → parent."""
        return {}

    def expand(self, step: str, config: C) -> Mapping[str, Mapping[str, Any]]:
        """Steps that this one implies, by name, as a recipe would write them; they are made before it."""
        return {}

    def inputs(self, config: C, context: Context) -> Mapping[str, str]:
        """Things outside the store on which the content depends: name → digest.  Cheap: `plan` calls it."""
        return {}

    def content(self, config: C) -> dict[str, Any]:
        """The slice of the config that decides the content; references are replaced by the parents' digests."""
        return content_of(config)

    def make(self, config: C, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        """Write the artifact's files into `draft.path` and its checks into `draft.evidence`."""
        raise NotImplementedError


def content_of(config: BaseModel) -> dict[str, Any]:
    """A config as JSON without the fields that are plumbing, at any depth."""
    fields = type(config).model_fields
    return {
        name: _content(getattr(config, name))
        for name, info in fields.items()
        if not (isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("fingerprint") is False)
    }


def _content(value: Any) -> Any:
    if isinstance(value, Choice):
        return {value.chosen: content_of(value.settings)}
    if isinstance(value, BaseModel):
        return content_of(value)
    if isinstance(value, list | tuple):
        return [_content(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _content(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
