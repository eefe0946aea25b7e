"""The house: floors, budgets, the map, and that `--help` imports nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "wuxing"
FLOORS = [
    {"core"},
    {"text", "compute", "source", "media", "page"},
    {"corpus", "data", "model"},
    {"objective", "task", "generate", "feature", "augment"},
    {"train", "evaluate", "release"},
    {"serve", "monitor", "console"},
    {"commands"},
]
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}
FILE_LINES, FUNCTION_LINES = 400, 60
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(tree: ast.AST) -> set[str]:
    """The packages of ours that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        assert not (isinstance(node, ast.ImportFrom) and node.level), "write imports from wuxing in full"
    return {name.split(".")[1] for name in names if name.startswith("wuxing.") and name.split(".")[1] in FLOOR}


def test_every_package_has_a_floor() -> None:
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(FLOOR)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_import_only_from_floors_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0]
    if own not in FLOOR:
        return
    above = {name for name in imported(ast.parse(path.read_text())) if name != own and FLOOR[name] >= FLOOR[own]}
    assert not above, f"{own} (floor {FLOOR[own]}) imports {above}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_seen_whole(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, f"{node.name} is too long"


def test_help_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "pyarrow", "pydantic", "transformers", "matplotlib", "starlette", "rich.console"}
    code = "import sys, wuxing.commands.main; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not heavy & loaded


def test_step_kinds_load_without_heavy_libraries() -> None:
    heavy = {"torch", "pyarrow", "transformers", "tokenizers", "matplotlib", "sklearn", "starlette"}
    code = (
        "import sys; from wuxing.commands.kinds import all_kinds as a; [k() for k in a().values()]; print(*sys.modules)"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not heavy & loaded


def rows_of_the_map() -> list[tuple[str, str]]:
    return re.findall(r"^\| ([PTEOM]\d+) \|(.*)$", (ROOT / "MAP.md").read_text(encoding="utf-8"), re.M)


def test_map_has_all_thirty_four_rows() -> None:
    rows = [row for row, _ in rows_of_the_map()]
    expected = [
        f"{phase}{i}"
        for phase, count in (("P", 5), ("T", 8), ("E", 5), ("O", 10), ("M", 6))
        for i in range(1, count + 1)
    ]
    assert rows == expected and len(rows) == 34


def test_every_path_of_the_map_exists() -> None:
    for row, text in rows_of_the_map():
        for path in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / path).exists(), f"{row}: {path}"


def test_every_command_of_the_map_answers() -> None:
    verbs = sorted({verb for _, text in rows_of_the_map() for verb in re.findall(r"`wuxing ([a-z]+)", text)})
    known = subprocess.run(
        [sys.executable, "-m", "wuxing", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert verbs
    for verb in verbs:
        assert re.search(rf"^  {verb} ", known, re.M), verb
        done = subprocess.run([sys.executable, "-m", "wuxing", verb, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_pages_of_the_docs_exist_in_both_languages() -> None:
    english = {path.name for path in (ROOT / "docs" / "en").glob("*.md")}
    chinese = {path.name for path in (ROOT / "docs" / "zh").glob("*.md")}
    assert english == chinese and english


def unfilled(text: str) -> list[str]:
    """Places of a page that a figure is still to fill (`@WIDTH@`), and words with which authors put something off."""
    return re.findall(r"@[A-Z_]{3,}@|\bTODO\b|\bTBD\b|\bFIXME\b", text)


def test_no_page_waits_for_a_figure() -> None:
    assert unfilled("so it is:\n\n@WIDTH@\n") == ["@WIDTH@"] and unfilled("takes TBD seconds") == ["TBD"]
    assert not unfilled("first-model@production, you@example.com, model/base@v1")
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        assert not unfilled(page.read_text(encoding="utf-8")), page.relative_to(ROOT)


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_reference_is_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "reference.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_test_file_has_a_name_of_its_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
