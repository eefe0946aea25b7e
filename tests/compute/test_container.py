"""The container files: every path that is copied is there, every extra exists, nobody runs as root."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "container").glob("Dockerfile*"))


def _instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_container_file_is_sound(path: Path) -> None:
    found = _instructions(path)
    words = [word for word, _ in found]
    assert words[0] == "FROM" and re.fullmatch(r"[a-z]+:[0-9][^ ]+", found[0][1])  # a pinned base
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word, rest in found:
        if word == "COPY":
            assert all((ROOT / name).exists() for name in rest.split()[:-1]), rest
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest
        for extra in re.findall(r"\.\[([a-z,-]+)\]", rest):
            assert set(extra.split(",")) <= set(project["optional-dependencies"])
    users = [rest for word, rest in found if word == "USER"]
    assert users[-1] != "root" and words.index("USER") < words.index("ENTRYPOINT")
    readme, licence = project["readme"], project["license-files"]
    copied = " ".join(rest for word, rest in found if word == "COPY").split()
    assert {readme, *licence, "pyproject.toml", "constraints.txt", "wuxing"} <= set(copied)
    command = dict(found)["ENTRYPOINT"]
    assert command == '["wuxing"]' and "wuxing" in project["scripts"]


def test_there_is_one_for_cpus_and_one_for_gpus() -> None:
    assert [path.name for path in FILES] == ["Dockerfile", "Dockerfile.gpu"]
    cpu, gpu = (path.read_text() for path in FILES)
    assert "whl/cpu" in cpu and "whl/cpu" not in gpu and "--gpus all" in gpu
