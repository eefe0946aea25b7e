"""Recipes are read strictly: each mistake names its line and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import KINDS

from wuxing.core.error import UsageError
from wuxing.core.recipe import build_recipe, load_recipe
from wuxing.core.schema import recipe_schema
from wuxing.core.yaml import parse

GOOD = """name: toy
seed: 7
steps:
  a: {make: text, text: hello}
  ab:
    make: join
    of: [a]
"""


def load(tmp_path: Path, text: str, *overrides: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "toy.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, KINDS, overrides)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("text: hello", "txt: hello"), r'toy.yaml, line 4, steps.a.txt: unknown key "txt". Did you mean "text"\?'),
        (("make: text", "make: txt"), r'line 4, steps.a.make: unknown kind "txt". Did you mean "text"\?'),
        (("{make: text, text: hello}", "{text: hello}"), "line 4, steps.a: the step does not say what it makes"),
        (("text: hello", "text: [1]"), "line 4, steps.a.text: input should be a valid string"),
        ((", text: hello", ""), "line 4, steps.a.text: this key is missing"),
        (("seed: 7", "sed: 7"), r'line 2, sed: unknown key "sed". Did you mean "seed"\?'),
        (("of: [a]", "of: [b]"), 'line 7, steps.ab.of.0: there is no step "b"'),
        (("of: [a]", "of: [ab]"), "the steps wait for each other: ab -> ab"),
        (("of: [a]", "of: [a]\n    of: [a]"), 'line 8: "of" stands twice'),
        (("{make: text, text: hello}", "{make: text, text: 'hello"), "line .*: not YAML"),
        (("text: hello", "text: hello, letters: {smal: x}"), r'letters.smal: unknown key "smal". Did you mean "small"'),
        (("text: hello}", "text: hello, name: x}\n  c: {make: text, text: hello, name: x}"), "already made by a"),
    ],
)
def test_mistake_is_named_with_line_and_remedy(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(UsageError, match=message):
        load(tmp_path, GOOD.replace(*change, 1))


def test_good_recipe_loads_in_order_whatever_the_order_of_writing(tmp_path: Path) -> None:
    turned = "name: toy\nseed: 7\nsteps:\n  ab: {make: join, of: [a]}\n  a: {make: text, text: hello}\n"
    assert list(load(tmp_path, turned).steps) == ["a", "ab"]


def test_overrides_read_yaml_and_name_mistakes(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, "a.letters.small=xyz").steps["a"].config.letters.small == "xyz"
    assert load(tmp_path, GOOD, "seed=9").seed == 9
    assert load(tmp_path, GOOD, "ab.of.0=a").steps["ab"].config.of == ["a"]
    with pytest.raises(UsageError, match='there is no step "b". Did you mean "ab"'):
        load(tmp_path, GOOD, "b.text=x")
    with pytest.raises(UsageError, match='unknown key "txt"'):
        load(tmp_path, GOOD, "a.txt=x")
    with pytest.raises(UsageError, match="is no override"):
        load(tmp_path, GOOD, "a.text")
    with pytest.raises(UsageError, match="stands under a plain value"):
        load(tmp_path, GOOD, "a.text.x=1")
    with pytest.raises(UsageError, match='"1" is no place in a list of 1'):
        load(tmp_path, GOOD, "ab.of.1=a")


def test_missing_recipe_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe .* Write one with: wuxing new"):
        load_recipe(tmp_path / "none.yaml", KINDS)


def test_numbers_are_numbers_and_words_are_words() -> None:
    text = "[3e-4, 1e3, 10, 1_000, 0.5, .5, true, no, off, 1:30, 2026-11-22, null, '3', -2]"
    value, _ = parse(text, "x")
    assert value == [3e-4, 1e3, 10, 1000, 0.5, 0.5, True, "no", "off", "1:30", "2026-11-22", None, "3", -2]
    assert [type(item) for item in value[:3]] == [float, float, int]


def test_schema_accepts_the_good_and_names_every_kind() -> None:
    schema = recipe_schema(KINDS)
    step = schema["properties"]["steps"]["additionalProperties"]
    assert step["properties"]["make"]["enum"] == ["join", "text"]
    assert schema["$defs"]["text"]["properties"]["text"]["description"] == "What to write."
    assert "text.Letters" in schema["$defs"]


def test_same_recipe_in_python(tmp_path: Path) -> None:
    value, _ = parse(GOOD, "x")
    assert build_recipe(value, KINDS).steps["ab"].parents == load(tmp_path, GOOD).steps["ab"].parents
