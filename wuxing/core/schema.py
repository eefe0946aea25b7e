"""The JSON Schema of recipes, made from the kinds' own configs."""

from __future__ import annotations

from typing import Any

from wuxing.core.recipe import Header, Kinds

_REFERENCE = "#/$defs/"


def recipe_schema(kinds: Kinds) -> dict[str, Any]:
    """Draft 2020-12 schema: a step is one of the kinds, told apart by `make`."""
    schema = Header.model_json_schema()
    definitions: dict[str, Any] = {}
    branches = []
    for word in sorted(kinds):
        config = _lifted(kinds[word]().Config.model_json_schema(), word, definitions)
        for shape in config.get("anyOf", [config]):
            shape["properties"]["make"] = {"const": word}
        branches.append(
            {
                "if": {"properties": {"make": {"const": word}}, "required": ["make"]},
                "then": {"$ref": f"{_REFERENCE}{word}"},
            }
        )
        definitions[word] = config
    step = {"type": "object", "required": ["make"], "properties": {"make": {"enum": sorted(kinds)}}, "allOf": branches}
    schema["properties"]["steps"] = {"type": "object", "additionalProperties": step}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"] = definitions
    return schema


def _lifted(value: Any, word: str, definitions: dict[str, Any]) -> Any:
    """`value` with all `$defs` inside it moved to `definitions` under `word.<name>`, and the references following."""
    if isinstance(value, list):
        return [_lifted(item, word, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    for name, definition in value.get("$defs", {}).items():
        definitions[f"{word}.{name}"] = _lifted(definition, word, definitions)
    lifted = {key: _lifted(item, word, definitions) for key, item in value.items() if key != "$defs"}
    if isinstance(lifted.get("$ref"), str):
        lifted["$ref"] = lifted["$ref"].replace(_REFERENCE, f"{_REFERENCE}{word}.")
    return lifted
