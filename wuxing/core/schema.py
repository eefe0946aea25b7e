"""The JSON Schema of recipes, made from the kinds' own configs."""

from __future__ import annotations

from typing import Any

from wuxing.core.recipe import Header, Kinds


def recipe_schema(kinds: Kinds) -> dict[str, Any]:
    """Draft 2020-12 schema: a step is one of the kinds, told apart by `make`."""
    schema = Header.model_json_schema()
    definitions: dict[str, Any] = {}
    branches = []
    for word in sorted(kinds):
        config = kinds[word]().Config.model_json_schema(ref_template=f"#/$defs/{word}.{{model}}")
        for name, definition in config.pop("$defs", {}).items():
            definitions[f"{word}.{name}"] = definition
        config["properties"]["make"] = {"const": word}
        branches.append(
            {"if": {"properties": {"make": {"const": word}}, "required": ["make"]}, "then": {"$ref": f"#/$defs/{word}"}}
        )
        definitions[word] = config
    step = {"type": "object", "required": ["make"], "properties": {"make": {"enum": sorted(kinds)}}, "allOf": branches}
    schema["properties"]["steps"] = {"type": "object", "additionalProperties": step}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"] = definitions
    return schema
