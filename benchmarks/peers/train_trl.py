"""Hugging Face's Trainer, or TRL's SFTTrainer, behind the gate; runs in their own environment."""

import os
import sys
import tempfile

import torch
from gate import STEPS, Gate, draw, settings


def network(values):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(values["model_type"], **{k: v for k, v in values.items() if k != "model_type"})
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)


def rows(asked):
    vocabulary = asked["model"]["vocab_size"]
    for step in range(STEPS):
        yield from draw(step, asked["rows"], asked["length"], vocabulary)[:, :-1].tolist()


def arguments(asked, place):
    return {
        "output_dir": place,
        "per_device_train_batch_size": asked["rows"] // asked["pieces"],
        "gradient_accumulation_steps": asked["pieces"],
        "max_steps": 10**6,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "bf16": True,
        "use_cpu": True,
        "torch_compile": asked["compile"],
        "gradient_checkpointing": False,
        "dataloader_num_workers": asked["workers"],
        "dataloader_persistent_workers": asked["workers"] > 0,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def plain(asked, place, callback):
    from transformers import Trainer, TrainingArguments, default_data_collator

    data = [{"input_ids": row, "labels": row} for row in map(torch.tensor, rows(asked))]
    model, args = network(asked["model"]), TrainingArguments(**arguments(asked, place))
    return Trainer(model, args, default_data_collator, data, callbacks=[callback])


def supervised(asked, place, callback):
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict({"input_ids": list(rows(asked))})
    words = Tokenizer(models.WordLevel({"<end>": 0}, "<end>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")
    packed = {"packing": True, "packing_strategy": "wrapped", "max_length": asked["length"], "dataset_num_proc": 1}
    args = SFTConfig(**arguments(asked, place), **packed)
    model = network(asked["model"])
    return SFTTrainer(model, args, train_dataset=data, processing_class=tokenizer, callbacks=[callback])


def main():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import TrainerCallback

    asked = settings()

    class Steps(TrainerCallback):
        def on_step_begin(self, args, state, control, **more):
            gate()

    with tempfile.TemporaryDirectory() as place:
        trainer = (supervised if asked["trainer"] == "trl" else plain)(asked, place, Steps())
        gate = Gate({"parameters": trainer.model.num_parameters(), "threads": torch.get_num_threads()})
        print(f"rows: {len(trainer.train_dataset)}", file=sys.stderr)
        assert len(trainer.train_dataset) == STEPS * asked["rows"]
        trainer.train()


main()
