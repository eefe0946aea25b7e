"""Writes docs/reference.md from the code: every verb with its options, every kind of step with its keys.

python docs/reference.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from wuxing.commands.kinds import all_kinds
from wuxing.commands.main import PHASES, app
from wuxing.core.schema import recipe_schema

PAGE = Path(__file__).with_name("reference.md")


def page() -> str:
    parts = ["# Reference\n\nWritten by `make docs` from the code; a test keeps it current.\n"]
    parts += ["## Verbs\n", *_verbs()]
    parts += [
        "## Steps of a recipe\n",
        "A recipe has `name`, `seed`, `description` and `steps`; each step has these keys.\n",
    ]
    schema = recipe_schema(all_kinds())["$defs"]
    for kind in sorted(all_kinds()):
        parts += [f"### make: {kind}\n", _about(schema[kind]), *_keys(kind, schema, schema[kind])]
    return "\n".join(parts).rstrip() + "\n"


def _verbs() -> list[str]:
    command: Any = typer.main.get_command(app)
    lines = []
    for phase in PHASES:
        verbs = {name: verb for name, verb in command.commands.items() if verb.rich_help_panel == phase}
        if not verbs:
            continue
        lines += [f"### {phase}\n", "| verb | what | options |", "|---|---|---|"]
        for name, verb in verbs.items():
            words = " ".join(p.metavar or p.name.upper() for p in verb.params if p.param_type_name == "argument")
            options = [
                f"`{p.opts[0]}` {_one_line(p.help or '')}"
                for p in verb.params
                if p.param_type_name == "option" and p.help
            ]
            lines.append(
                f"| `wuxing {name} {words}`".rstrip("` ") + f"` | {_one_line(verb.help)} | {'<br>'.join(options)} |"
            )
        lines.append("")
    return lines


def _keys(kind: str, schema: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """The table of a model's keys, then those of the models inside it, each once."""
    lines: list[str] = []
    queue, done = [("", model)], set()
    while queue:
        title, here = queue.pop(0)
        if title:
            lines += [f"**{title}** – {_about(here)}"]
        for part in here.get("anyOf", [here]):
            lines += _table(kind, part)
            for name in _names_inside(part.get("properties", {})):
                if name not in done and name in schema:
                    done.add(name)
                    queue.append((name.partition(".")[2], schema[name]))
    return lines


def _table(kind: str, model: dict[str, Any]) -> list[str]:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    required = model.get("required", [])
    for name, value in model.get("properties", {}).items():
        if name == "make":
            continue
        default = "required" if name in required else f"`{value.get('default')}`" if "default" in value else ""
        lines.append(f"| `{name}` | {_type(value)} | {default} | {_one_line(value.get('description', ''))} |")
    return [*lines, ""] if len(lines) > 2 else []


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return value["$ref"].rpartition("/")[2].partition(".")[2]
    if "enum" in value:
        return " or ".join(f"`{item}`" for item in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_type(part) for part in value["anyOf"] if part.get("type") != "null"))
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}" if "items" in value else "list"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"name → {_type(inner)}" if isinstance(inner, dict) else "object"
    return str(value.get("type", "any"))


def _names_inside(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
        return own + [name for inner in value.values() for name in _names_inside(inner)]
    return [name for inner in value for name in _names_inside(inner)] if isinstance(value, list) else []


def _about(model: dict[str, Any]) -> str:
    return _one_line(model.get("description", "")) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    if "--check" in sys.argv:
        raise SystemExit(0 if PAGE.read_text(encoding="utf-8") == page() else "docs/reference.md is old: run make docs")
    PAGE.write_text(page(), encoding="utf-8")
