"""The step kind `release`: a trained, evaluated model in the formats others load, proved equal to what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from wuxing.core.artifact import Artifact
from wuxing.core.context import Context
from wuxing.core.step import Config, Draft, Parent, StepConfig, StepKind


class Gate(Config):
    """What the model must reach before it is promoted."""

    better_than: str
    """Name of another model of the same evaluation."""
    metric: str
    """A metric of the evaluation, such as `accuracy/arithmetic` or `bits_per_byte/articles`."""
    minimum_gain: float = Field(default=0.0, ge=0)
    """By how much it must be better, in the metric's unit; its 95 % interval must lie above 0 in any case."""
    alias: str | None = None
    """The alias to move to this release when every check passed, such as `production`."""


class Bounds(Config):
    """How far an export may be from the trained model.  The defaults are some 20 times what rounding alone does."""

    transformers: float = Field(default=5e-4, gt=0)
    """Largest difference of a logit, ours against `transformers`, both fp32 (rounding: about 2e-5)."""
    gguf: float | None = Field(default=None, gt=0)
    """Largest difference of a log-probability among llama.cpp's 512 likeliest; unless given 5e-4 for f32 (rounding:
    about 1e-5), 0.1 for f16 and 0.5 for bf16 (11 and 8 bits of mantissa; measured 0.01 and 0.08)."""
    top1_agreement: float = Field(default=0.99, ge=0, le=1)
    """Share of positions whose likeliest token must be the same; ties within the bound above count as the same."""


class ReleaseStep(StepConfig):
    """Release a model: export, prove, judge."""

    model: str
    """The model to release."""
    evaluation: str
    """The evaluation that judged it."""
    formats: tuple[Literal["safetensors", "gguf"], ...] = ("safetensors", "gguf")
    """`safetensors`: the Hugging Face layout, which `wuxing serve` loads too; `gguf`: for llama.cpp and its kin."""
    gguf_precision: Literal["f32", "f16", "bf16"] = "f32"
    """Of the matrices in the GGUF file: half of the size costs some parity, see `parity`."""
    gate: Gate | None = None
    """What it must reach; without a gate nothing is promoted."""
    parity: Bounds = Bounds()
    """How far an export may be from what was trained."""
    license: str = "other"
    """Licence of the released weights (an SPDX name in lower case), for the model card."""
    allowed_licenses: tuple[str, ...] | None = None
    """When given, data under any other licence fail the release."""

    @model_validator(mode="after")
    def _safetensors_is_there(self) -> ReleaseStep:
        if "safetensors" not in self.formats or len(set(self.formats)) != len(self.formats):
            raise ValueError("formats must hold safetensors, which serving loads, and each format once")
        return self


class ReleaseKind(StepKind[ReleaseStep]):
    """Writes `model/`, `model.gguf`, `parity.json`, `reference.json`, `template.json`, `manifest.json`."""

    kind = "release"
    Config = ReleaseStep
    libraries = ("gguf",)
    required = (
        "readers",
        "parity_ids",
        "parity_template",
        "parity_tensors",
        "parity_logits",
        "parity_answers",
        "loads_without_code",
        "template",
        "licenses",
        "gate",
    )
    volatile = ("parity.json",)

    def parents(self, config: ReleaseStep) -> Mapping[str, Parent]:
        return {
            "model": Parent(config.model, ("model",)),
            "evaluation": Parent(config.evaluation, ("evaluation",)),
        }

    def make(self, config: ReleaseStep, parents: Mapping[str, Artifact], draft: Draft, context: Context) -> None:
        from wuxing.release.release import make_release

        make_release(config, parents["model"], parents["evaluation"], draft, context)
