"""litgpt's own model and pretraining loop, behind the gate; runs in its own environment."""

import tempfile

import torch
from gate import Gate, draw, settings
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule
from litgpt.model import GPT
from litgpt.pretrain import setup
from torch.utils.data import DataLoader, IterableDataset


class FusedAdamW(torch.optim.AdamW):
    """litgpt asks for the fused kernel on GPUs only; it is faster here too, and an optimizer's class may be given."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr=lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True)


class Stream(IterableDataset):
    """Whole micro-batches; `gate` is passed before each step."""

    def __init__(self, asked, gate=None):
        self.asked, self.gate = asked, gate

    def __iter__(self):
        rows, pieces = self.asked["rows"], self.asked["pieces"]
        step = 0
        while True:
            tokens = torch.from_numpy(draw(step, rows, self.asked["length"], self.asked["model"]["vocab_size"]))
            for number, piece in enumerate(tokens.chunk(pieces)):
                if self.gate and number == 0:
                    self.gate()
                yield piece
            step += 1


class Tokens(DataModule):
    def __init__(self, asked, gate):
        super().__init__()
        self.asked, self.gate = asked, gate

    def connect(self, tokenizer=None, batch_size=1, max_seq_length=None):
        pass

    def train_dataloader(self):
        return DataLoader(Stream(self.asked, self.gate), batch_size=None)

    def val_dataloader(self):
        return DataLoader(Stream(self.asked), batch_size=None)


def config_of(asked):
    shape = asked["model"]
    return Config(
        name="benchmark",
        block_size=asked["length"],
        n_layer=shape["num_hidden_layers"],
        n_embd=shape["hidden_size"],
        n_head=shape["num_attention_heads"],
        head_size=shape["head_dim"],
        n_query_groups=shape["num_key_value_heads"],
        intermediate_size=shape["intermediate_size"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        rope_base=int(shape["rope_parameters"]["rope_theta"]),
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape["rms_norm_eps"],
        norm_qk=shape["model_type"] == "qwen3",
        mlp_class_name="LLaMAMLP",
    )


def main():
    asked = settings()
    config = config_of(asked)
    with torch.device("meta"):
        model = GPT(config)
    parameters = sum(p.numel() for p in model.parameters()) - model.lm_head.weight.numel()
    gate = Gate({"parameters": parameters, "threads": torch.get_num_threads()})
    with tempfile.TemporaryDirectory() as place:
        setup(
            "benchmark",
            config,
            out_dir=place,
            precision=asked["precision"],
            data=Tokens(asked, gate),
            train=TrainArgs(
                save_interval=None,
                log_interval=10**6,
                global_batch_size=asked["rows"],
                micro_batch_size=asked["rows"] // asked["pieces"],
                max_tokens=10**12,
                max_norm=1.0,
                lr_warmup_steps=1,
                min_lr=1e-4,
                tie_embeddings=asked["model"]["tie_word_embeddings"],
            ),
            eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
            optimizer={"class_path": "__main__.FusedAdamW", "init_args": {"lr": 1e-3}},
            devices=1,
            logger_name="csv",
        )


if __name__ == "__main__":
    main()
