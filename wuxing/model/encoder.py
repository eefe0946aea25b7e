"""A network that sees both ways and fills masked places: BERT's training for the bodies of Qwen3 and Llama.

Its `config.json` says `is_causal: false`, which `transformers` follows (`AutoModel`, and `AutoModelForCausalLM` for the
logits of each place), and an architecture that no server of causal models knows, so that none takes it for one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wuxing.model.files import load_network, role_of
from wuxing.model.network import Network

SUFFIX = "ForMaskedLM"


class Encoder(Network):
    """The body of a language model whose tokens see all of their document; the output table names masked tokens."""

    role = "encoder"

    @property
    def mask_id(self) -> int:
        """What stands in the place of a token that is to be guessed."""
        return int(self.config["mask_token_id"])


def encoder_config(config: dict[str, Any], mask_id: int) -> dict[str, Any]:
    """The `config.json` of an encoder with this body, which was taught to guess what `mask_id` hides."""
    family = {"qwen3": "Qwen3", "llama": "Llama"}[config["model_type"]]
    changes = {"is_causal": False, "use_cache": False, "mask_token_id": mask_id}
    return {**config, "architectures": [family + SUFFIX], **changes}


def encoder_from(directory: Path, config: dict[str, Any]) -> Encoder:
    """One that goes on from an encoder, or from a language model, which saw back only until now."""
    before = load_network(directory, kind=Encoder if role_of(directory) == Encoder.role else Network)
    network = Encoder(config)
    network.load_state_dict(before.state_dict())
    return network
