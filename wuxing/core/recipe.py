"""Recipes: one YAML file of named steps, read strictly; a mistake is named with its line and the nearest right word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from wuxing.core.artifact import Reference
from wuxing.core.error import UsageError, nearest
from wuxing.core.step import Parent, StepConfig, StepKind
from wuxing.core.yaml import Location, parse, parse_scalar

Kinds = Mapping[str, Callable[[], StepKind[Any]]]
"""`make:` word → loader of its kind."""


class Header(BaseModel):
    """The keys above the steps."""

    model_config = {"extra": "forbid", "frozen": True}

    name: str
    seed: int
    description: str = ""
    steps: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One step of a loaded recipe.  Inert: nothing is made before `core/run.py` asks."""

    step: str
    kind: StepKind[Any]
    config: StepConfig
    parents: Mapping[str, Parent]

    @property
    def name(self) -> str:
        """The artifact's name in the store."""
        return self.config.name or self.step


@dataclass(frozen=True)
class Recipe:
    """A valid recipe: its steps in an order in which each comes after those it reads."""

    name: str
    seed: int
    description: str
    steps: dict[str, Step]
    source: dict[str, Any]
    """The recipe as written, overrides applied: what the record keeps."""

    def needed_for(self, step: str | None) -> list[Step]:
        """All steps, or only those that `step` stands on and itself."""
        if step is None:
            return list(self.steps.values())
        if step not in self.steps:
            raise UsageError(f'the recipe has no step "{step}"', nearest(step, self.steps))
        wanted, queue = {step}, [step]
        while queue:
            for parent in self.steps[queue.pop()].parents.values():
                if parent.reference in self.steps and parent.reference not in wanted:
                    wanted.add(parent.reference)
                    queue.append(parent.reference)
        return [item for name, item in self.steps.items() if name in wanted]


def load_recipe(path: Path, kinds: Kinds, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe file; `overrides` are `step.key=value` texts.  UsageError for every mistake."""
    if not path.is_file():
        raise UsageError(f"there is no recipe {path}", "Write one with: wuxing new first-model")
    value, lines = parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no recipe", "It must have the keys name, seed and steps")
    for override in overrides:
        _override(value, override)
    return build_recipe(value, kinds, str(path), lines)


def build_recipe(
    value: dict[str, Any], kinds: Kinds, where: str = "recipe", lines: Mapping[Location, int] | None = None
) -> Recipe:
    """A recipe from the value that its YAML would have: the same thing in Python."""
    place = _Place(where, lines or {})
    header = _validate(Header, value, (), place)
    steps: dict[str, Step] = {}
    for name, raw in header.steps.items():
        step = _step(name, raw, kinds, place)
        for implied, config in step.kind.expand(name, step.config).items():
            if implied in header.steps:
                raise UsageError(f'{place.at(("steps", implied))}: "{name}" makes its own step of that name')
            steps[implied] = _step(implied, dict(config), kinds, place)
        steps[name] = step
    _check_names(steps, place)
    return Recipe(header.name, header.seed, header.description, _ordered(steps, place), value)


@dataclass(frozen=True)
class _Place:
    """Turns a path inside the recipe into `recipes/x.yaml, line 12, steps.base.budget`."""

    file: str
    lines: Mapping[Location, int]

    def at(self, path: Location) -> str:
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = f", line {self.lines[known]}" if known in self.lines else ""
        dotted = ".".join(str(part) for part in path)
        return f"{self.file}{line}" + (f", {dotted}" if dotted else "")


def _step(name: str, raw: dict[str, Any], kinds: Kinds, place: _Place) -> Step:
    make = raw.get("make")
    if make is None:
        raise UsageError(f"{place.at(('steps', name))}: the step does not say what it makes", "Add make: KIND")
    if make not in kinds:
        raise UsageError(f'{place.at(("steps", name, "make"))}: unknown kind "{make}"', nearest(str(make), kinds))
    kind = kinds[make]()
    config = _validate(kind.Config, raw, ("steps", name), place)
    try:
        parents = kind.parents(config)
    except UsageError as error:
        raise UsageError(f"{place.at(('steps', name))}: {error.what}", error.remedy) from None
    return Step(name, kind, config, parents)


def _check_names(steps: dict[str, Step], place: _Place) -> None:
    taken: dict[tuple[str, str], str] = {}
    for step in steps.values():
        identity = (step.kind.kind, step.name)
        if identity in taken:
            raise UsageError(
                f"{place.at(('steps', step.step))}: {identity[0]}/{identity[1]} is already made by {taken[identity]}",
                "Give one of them another name",
            )
        taken[identity] = step.step


def _ordered(steps: dict[str, Step], place: _Place) -> dict[str, Step]:
    ordered: dict[str, Step] = {}
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in visiting:
            raise UsageError(f"{place.file}: the steps wait for each other: {' -> '.join([*visiting, name])}")
        visiting.append(name)
        for role, parent in steps[name].parents.items():
            _check_parent(steps, name, role, parent, place)
            if parent.reference in steps:
                visit(parent.reference)
        visiting.pop()
        ordered[name] = steps[name]

    for name in steps:
        visit(name)
    return ordered


def _check_parent(steps: dict[str, Step], name: str, role: str, parent: Parent, place: _Place) -> None:
    where = f"{place.at(('steps', name, *role.split('.')))}"
    if parent.reference in steps:
        kind = steps[parent.reference].kind.kind
        if kind not in parent.kinds:
            raise UsageError(
                f'{where}: "{parent.reference}" is a {kind}', f"A {' or '.join(parent.kinds)} must be here"
            )
        return
    reference = Reference.parse(parent.reference)
    if not (reference.kind or reference.version or reference.alias):
        raise UsageError(f'{where}: there is no step "{parent.reference}"', nearest(parent.reference, steps))


def _override(value: dict[str, Any], text: str) -> None:
    path, equals, raw = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f'"{text}" is no override', "Write --set step.key=value")
    steps = value.get("steps")
    if keys[0] not in Header.model_fields and isinstance(steps, dict):
        if keys[0] not in steps:
            raise UsageError(f'--set {path}: there is no step "{keys[0]}"', nearest(keys[0], steps))
        keys = ["steps", *keys]
    here: Any = value
    for key in keys[:-1]:
        if isinstance(here, dict):
            here.setdefault(key, {})
        here = here[_place_in(here, key, path)]
    here[_place_in(here, keys[-1], path)] = parse_scalar(raw)


def _place_in(here: Any, key: str, path: str) -> str | int:
    if isinstance(here, dict):
        return key
    if isinstance(here, list) and key.isdigit() and int(key) < len(here):
        return int(key)
    if isinstance(here, list):
        raise UsageError(f'--set {path}: "{key}" is no place in a list of {len(here)}', "Places count from 0")
    raise UsageError(f'--set {path}: "{key}" stands under a plain value', "Set that value as a whole")


# ------------------------------------------------------------------------------------------------ pydantic's errors
def _validate(model: type[Any], value: Any, path: Location, place: _Place) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        unknown = [item for item in found if item["type"] == "extra_forbidden"]
        first = (unknown or found)[0]
        more = f" (and {len(found) - 1} more mistakes)" if len(found) > 1 else ""
        shape = model.shape(value) if issubclass(model, StepConfig) else model
        raise UsageError(_describe(shape, dict(first), value, path, place) + more) from None


def _describe(model: type[Any], item: dict[str, Any], value: Any, path: Location, place: _Place) -> str:
    inside = _path_in(value, item["loc"])
    where = place.at((*path, *inside))
    if item["type"] == "extra_forbidden":
        key = str(item["loc"][-1])
        fields = _fields_at(model, item["loc"][:-1])
        return f'{where}: unknown key "{key}". {nearest(key, fields)}'
    if item["type"] == "missing":
        return f"{where}: this key is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    if isinstance(given, str):
        given = re.sub(r"(?<=://)[^/@\s]+@", "…@", given)  # a login is not repeated
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message[0].lower() + message[1:]}{shown}"


def _path_in(value: Any, loc: Iterable[str | int]) -> Location:
    """The part of a pydantic location that exists in the recipe: the tags of unions are left out."""
    path: list[str | int] = []
    parts = list(loc)
    for i, part in enumerate(parts):
        if isinstance(value, dict) and (part in value or i == len(parts) - 1):
            value = value.get(part)
            path.append(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
            path.append(part)
    return tuple(path)


def _fields_at(annotation: Any, loc: Iterable[str | int]) -> list[str]:
    """The keys that may stand where a pydantic location points."""
    candidates = _models(annotation)
    for part in loc:
        deeper = [model.model_fields[str(part)].annotation for model in candidates if str(part) in model.model_fields]
        if deeper:
            candidates = [model for one in deeper for model in _models(one)]
        elif any(part in _tags(model) for model in candidates):
            candidates = [model for model in candidates if part in _tags(model)]
    return sorted({name for model in candidates for name in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside a type: of unions, lists, dictionaries."""
    if isinstance(annotation, type) and not get_origin(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tags(model: type[BaseModel]) -> set[str]:
    """What pydantic may call this member of a union in a location: its class name or its literal tag."""
    literals = {
        str(value)
        for info in model.model_fields.values()
        for value in get_args(info.annotation)
        if isinstance(value, str)
    }
    return {model.__name__, *literals}
