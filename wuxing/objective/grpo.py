"""Group-relative policy optimisation: replies of one prompt are judged against each other.

Shao et al. 2024 (DeepSeekMath, eq. 3) with the loss summed over tokens and divided by their number (Yu et al. 2025,
DAPO), so that a token weighs the same in a long and in a short reply.  The ratio is taken against the log-probabilities
that the sampler itself reported.

Shapes: B rows, T tokens, N tokens that teach, G replies of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from wuxing.core.step import Config

if TYPE_CHECKING:
    from torch import Tensor

    from wuxing.data.batch import Batch
    from wuxing.objective.objective import Loss, Model

ADVANTAGE_FLOOR = 1e-4
"""Added to the deviation of a group's rewards, so that a group of equal rewards has advantage 0 and not 0/0."""


class Grpo(Config):
    """Clipped policy gradient.  Batches carry `advantages`, `sampler_logprobs` and, with `kl`, `reference_logprobs`."""

    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """How far below 1 the probability ratio may push before the gradient stops; larger trusts old rollouts more."""
    clip_high: float = Field(default=0.28, gt=0)
    """The same above 1; larger lets rare tokens grow faster (DAPO)."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the k3 estimate of KL(policy, start model); larger stays nearer to where training started."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Explained at `__call__`."""
        return ("entropy", "clipped", "mismatch", *(("kl_start",) if self.kl else ()))

    def count(self, batch: Batch) -> Tensor:
        """The reply tokens."""
        return (batch.labels_BT >= 0).sum()

    def __call__(self, model: Model, batch: Batch) -> Loss:
        """Figures, sums over reply tokens: `entropy`, `clipped`, `kl_start`, `mismatch` (k3 of sampler and trainer)."""
        import torch

        from wuxing.objective.cross_entropy import token_logprobs
        from wuxing.objective.next_token import taught
        from wuxing.objective.objective import Loss

        hidden_ND, labels_N = taught(model, batch)
        keep = batch.labels_BT >= 0
        logprobs_N, entropy_N = token_logprobs(hidden_ND, model.head_VD, labels_N)
        sampler_N = batch.extra["sampler_logprobs"][keep]
        advantages_N = batch.extra["advantages"][keep]
        ratio_N = (logprobs_N - sampler_N).exp()
        bounded_N = ratio_N.clamp(1 - self.clip_low, 1 + self.clip_high)
        gain_N = torch.minimum(ratio_N * advantages_N, bounded_N * advantages_N)
        loss = -gain_N.sum()
        sums = {
            "entropy": entropy_N.sum(),
            "clipped": (bounded_N * advantages_N < ratio_N * advantages_N).sum(),
            "mismatch": k3(sampler_N, logprobs_N.detach()).sum(),
        }
        if self.kl:
            kl = k3(logprobs_N, batch.extra["reference_logprobs"][keep]).sum()
            loss = loss + self.kl * kl
            sums["kl_start"] = kl.detach()
        return Loss(loss, sums)


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Unbiased, never negative estimate of KL(p, reference) from samples of p (Schulman 2020)."""
    difference = reference - logprobs
    return difference.exp() - difference - 1


def advantages(rewards: Sequence[float], normalise: bool = True, negative_share: float = 1.0) -> list[float]:
    """Rewards of one group, centred on their mean, when asked divided by their deviation, losers times a share."""
    mean = sum(rewards) / len(rewards)
    centred = [reward - mean for reward in rewards]
    deviation = (sum(value * value for value in centred) / len(centred)) ** 0.5 + ADVANTAGE_FLOOR
    scaled = [value / deviation for value in centred] if normalise else centred
    return [value if value > 0 else value * negative_share + 0.0 for value in scaled]
