"""Whether learning rates carry over: the best one at other widths, depths and batches, beside the law's.

    python benchmarks/width.py [--folder DIR] [--page FILE]

Each run is a step of a recipe, trained by `wuxing run` on the Wikipedia leads of recipes/first-model.yaml with a small
vocabulary.  A sweep multiplies the law's rate by powers of the root of two; the law holds where the least loss lies
within one such factor of its own rate, or where its own rate is as good within the noise of a run.  A killed benchmark
goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FIRST = ROOT / "recipes" / "first-model.yaml"
POWERS = (-2, -1, 0, 1, 2)
"""Of the root of two, by which the law's rate is multiplied."""
TOKENS = 60_000
VOCABULARY = 2048
NOISE = 0.004
"""Relative: two seeds of one run differ by so much (docs/log.md)."""


@dataclass(frozen=True)
class Setting:
    """What is trained at several rates."""

    sweep: str
    name: str
    width: int
    layers: int = 4
    batch: int = 1024

    def step(self, power: int, rate: float) -> dict[str, Any]:
        """The recipe's step."""
        shape = {"family": "qwen3", "size": "1m", "width": self.width, "layers": self.layers}
        return {
            "make": "model",
            "architecture": shape,
            "tokenizer": "vocabulary",
            "data": {"articles": 1.0},
            "objective": "next_token",
            "length_tokens": 128,
            "batch_tokens": self.batch,
            "optimizer": {"learning_rate": float(f"{rate * 2 ** (power / 2):.4g}")},
            "validation": {"times": 1},
            "budget": {"tokens": TOKENS},
        }

    def step_name(self, power: int) -> str:
        """Unique in the recipe."""
        return f"{self.name}-p{power + 9}"


SETTINGS = (
    *(Setting("width", f"w{width}", width) for width in (64, 128, 256, 384)),
    *(Setting("depth", f"d{layers}", 128, layers=layers) for layers in (2, 8)),
    *(Setting("batch", f"b{batch}", 128, batch=batch) for batch in (512, 2048)),
)


def law_rate(setting: Setting) -> float:
    """What the law says for this width and batch."""
    from wuxing.train.config import ModelConfig
    from wuxing.train.update.law import learning_rate

    step = setting.step(0, 1.0)
    step.pop("optimizer")
    return learning_rate(ModelConfig.model_validate(step), setting.width, setting.batch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "wuxing-bench" / "width")
    parser.add_argument("--page", type=Path, help="draw the sweeps as an SVG file")
    a = parser.parse_args()
    recipe = write_recipe(a.folder)
    command = [sys.executable, "-m", "wuxing", "run", str(recipe), "--home", str(a.folder / "home")]
    done = subprocess.run(command, check=False)
    if done.returncode:
        return done.returncode
    found = {one: losses(a.folder, one) for one in SETTINGS}
    report(found)
    if a.page:
        a.page.write_text(draw(found))
    return 0


def write_recipe(folder: Path) -> Path:
    """One recipe with the articles and vocabulary of the first model and a step for each run."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = {"articles": yaml.safe_load(FIRST.read_text())["steps"]["articles"]}
    steps["vocabulary"] = {"make": "tokenizer", "corpus": "articles", "vocab_size": VOCABULARY}
    for one in SETTINGS:
        rate = law_rate(one)
        steps.update({one.step_name(power): one.step(power, rate) for power in POWERS})
    path = folder / "width.yaml"
    path.write_text(yaml.safe_dump({"name": "width", "seed": 7, "steps": steps}, sort_keys=False))
    return path


def losses(folder: Path, setting: Setting) -> dict[int, float]:
    """Bits per byte by power."""
    found = {}
    for power in POWERS:
        made = (folder / "home" / "model" / setting.step_name(power)).glob("v*/training.json")
        newest = max(made, key=lambda path: int(path.parent.name[1:]))
        found[power] = float(json.loads(newest.read_text())["validation"][-1]["bits_per_byte"])
    return found


def report(found: dict[Setting, dict[int, float]]) -> None:
    """A table: bits per byte by rate, the least one, and whether the law holds."""
    print("| run | law's rate | " + " | ".join(f"× {2 ** (power / 2):.2f}" for power in POWERS) + " | best at | law |")
    print("|---|--:|" + "--:|" * len(POWERS) + "--:|---|")
    for one, by_power in found.items():
        best = min(by_power, key=lambda power: by_power[power])
        cost = by_power[0] / by_power[best] - 1
        cells = [f"{by_power[power]:.3f}" for power in POWERS]
        verdict = "holds" if abs(best) <= 1 or cost <= NOISE else f"costs {cost:.1%}"
        print(
            f"| {one.sweep} {one.name} | {law_rate(one):g} | "
            + " | ".join(cells)
            + f" | × {2 ** (best / 2):.2f} | {verdict} |"
        )


def draw(found: dict[Setting, dict[int, float]]) -> str:
    """Bits per byte over the rate as a multiple of the law's, a panel for each sweep."""
    from wuxing.page.chart import Course, draw_lines
    from wuxing.page.svg import for_file

    panels = []
    for sweep in dict.fromkeys(one.sweep for one in found):
        lines = [
            (one.name, [(2 ** (power / 2), value) for power, value in by_power.items()])
            for one, by_power in found.items()
            if one.sweep == sweep or (sweep != "width" and one.name == "w128")
        ]
        panels.append(Course(sweep, lines, marks=True, log_x=True))
    return for_file(draw_lines("bits per byte", panels, "learning rate over the law's"))


if __name__ == "__main__":
    raise SystemExit(main())
