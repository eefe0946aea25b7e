"""YAML as recipes need it: 1.2 scalars (`3e-4` is a number, `no` a word), no repeated keys, a line for every path."""

from __future__ import annotations

import re
from typing import Any

import yaml

from wuxing.core.error import UsageError

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_FLOAT = (
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN)"
)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str, where: str) -> tuple[Any, dict[Location, int]]:
    """The value of one YAML document, and the line (from 1) of each path in it.  UsageError names file and line."""
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else _value(loader, node, (), lines, where)), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{where}, line {line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {error}") from None


def parse_scalar(text: str) -> Any:
    """The value of `--set a.b=TEXT`: read as YAML."""
    return parse(text, f'"{text}"')[0]


def _value(loader: _Loader, node: yaml.Node, path: Location, lines: dict[Location, int], where: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, i), lines, where) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node, deep=True))
            line = key_node.start_mark.line + 1
            if key in values:
                raise UsageError(f'{where}, line {line}: "{key}" stands twice', "Keep one of them")
            values[key] = _value(loader, value_node, (*path, key), lines, where)
            lines[(*path, key)] = line
        return values
    return loader.construct_object(node, deep=True)
