"""nanochat's own model, optimizers and compiled step, behind the gate; runs in nanochat's environment.

Its architecture differs (separate tables, value embeddings, squared ReLU), so what is compared is arithmetic: six per
weight of a matrix and token, and six per channel and position of causal attention, for every trainer alike.
"""

import os
import sys

import torch
from gate import Gate, draw, settings


def main():
    asked = settings()
    os.environ["NANOCHAT_DTYPE"] = "bfloat16"
    sys.path.insert(0, asked["source"])
    from nanochat.common import compute_init
    from nanochat.gpt import GPT, GPTConfig

    compute_init("cpu")
    shape = asked["nanochat"]
    config = GPTConfig(
        sequence_len=asked["length"],
        vocab_size=asked["model"]["vocab_size"],
        n_layer=shape["depth"],
        n_head=shape["width"] // 64,
        n_kv_head=shape["width"] // 64,
        n_embd=shape["width"],
        window_pattern="L",
    )
    with torch.device("meta"):
        network = GPT(config)
    network.to_empty(device="cpu")
    network.init_weights()
    model = torch.compile(network, dynamic=False) if asked["compile"] else network
    optimizer = network.setup_optimizer(weight_decay=0.1)
    flops = 6 * network.num_matmul_params() + 6 * shape["depth"] * shape["width"] * asked["length"]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    gate = Gate({"parameters": parameters, "threads": torch.get_num_threads(), "position_flops": flops})
    step = 0
    while True:
        gate()
        tokens = torch.from_numpy(draw(step, asked["rows"], asked["length"], asked["model"]["vocab_size"]))
        for piece in tokens.chunk(asked["pieces"]):
            loss = model(piece[:, :-1].contiguous(), piece[:, 1:].contiguous()) / asked["pieces"]
            loss.backward()
        optimizer.step()
        network.zero_grad(set_to_none=True)
        loss.item()
        step += 1


main()
