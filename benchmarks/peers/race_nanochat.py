"""Inside nanochat's environment: bits per byte of its newest base model on given texts, computed independently.

    python race_nanochat.py SOURCE TEXTS.parquet MODEL_TAG

Every byte of every text is predicted exactly once: a text is read from its start, behind nanochat's <|bos|>, in rows of
the model's own length; a row after the first begins with the last token of the row before it.  nanochat's own measure
packs the texts and crops some of them.  Weights are computed with in fp32, as nanochat loads them.  Prints JSON.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])


@torch.no_grad()
def main() -> None:
    import pyarrow.parquet as pq
    from nanochat.checkpoint_manager import load_model_from_dir
    from nanochat.dataloader import tokenizing_distributed_data_loader_bos_bestfit
    from nanochat.loss_eval import evaluate_bpb
    from nanochat.tokenizer import get_token_bytes

    directory = Path(os.environ["NANOCHAT_BASE_DIR"], "base_checkpoints")
    model, tokenizer, meta = load_model_from_dir(directory, torch.device("cpu"), "eval", model_tag=sys.argv[3])
    length = meta["model_config"]["sequence_len"]
    texts = pq.read_table(sys.argv[2], columns=["text"])["text"].to_pylist()
    nats = torch.zeros((), dtype=torch.float64)
    tokens = 0
    for text in texts:
        ids = tokenizer.encode(text, prepend=tokenizer.get_bos_token_id())
        assert tokenizer.decode(ids[1:]) == text
        tokens += len(ids) - 1
        for start in range(0, len(ids) - 1, length):
            row = torch.tensor([ids[start : start + length + 1]])
            logits = model(row[:, :-1])[0].float()
            nats += torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none").double().sum()
    batch = 16
    batches = tokenizing_distributed_data_loader_bos_bestfit(tokenizer, batch, length, split="val", device="cpu")
    its = evaluate_bpb(model, batches, max(1, tokens // (batch * length)), get_token_bytes())
    size = sum(len(text.encode()) for text in texts)
    bits = float(nats) / math.log(2) / size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        json.dumps(
            {
                "bits_per_byte": bits,
                "its_bits_per_byte": its,
                "bytes": size,
                "tokens": tokens,
                "parameters": parameters,
                "dtype": str(model.transformer.wte.weight.dtype),
            }
        )
    )


main()
