"""Learning to guess masked tokens from all that stands around them (Devlin et al. 2019, RoBERTa's mask drawn anew).

The batch brings the mask (`data.masking`): its labels stand at the masked places themselves, and nowhere else.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from wuxing.objective.next_token import NextToken


class Masked(NextToken):
    """Cross-entropy of each masked token, summed over them.  The network sees both ways."""

    share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens of a row that are to be guessed, at least one; special tokens never.  0.3 suits larger models
    (Wettig et al. 2023)."""
    replaced: float = Field(default=0.8, ge=0, le=1)
    """Of those, the share whose place shows the mask token."""
    random: float = Field(default=0.1, ge=0, le=1)
    """The share whose place shows any other token; the rest is left as it is, so that every state has to be right."""
    token: str | None = None
    """The special token that stands for a masked one; left out: the tokenizer's own, from `mask_token: true`."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Masked:
        if self.replaced + self.random > 1:
            raise ValueError("masked.replaced and masked.random are shares of the same tokens: together 1 at most")
        return self
