"""What a model is for decides how it is measured."""

from __future__ import annotations

from collections.abc import Mapping

from wuxing.core.artifact import Artifact
from wuxing.core.error import UsageError
from wuxing.evaluate.evaluation_kind import EvaluationStep

WRITER, ENCODER, CLASSIFIER = "language model", "encoder", "classifier"
BITS = {WRITER: "bits_per_byte", ENCODER: "masked_bits_per_byte"}
"""What is measured in bits on a corpus."""


def roles_of(config: EvaluationStep, models: Mapping[str, Artifact]) -> dict[str, str]:
    """What each model is for.  Raises UsageError where one cannot do what is asked."""
    from wuxing.model.files import role_of

    roles = {name: role_of(artifact.path) for name, artifact in models.items()}
    for name, role in roles.items():
        if role == WRITER:
            continue
        if config.tasks:
            raise UsageError(f"{name} is a{'n' * (role == ENCODER)} {role}: it answers no tasks", "Take tasks out")
        if config.corpus is None:
            raise UsageError(f"{name} is a {role}, which is measured on documents", "Name a corpus")
    return roles
