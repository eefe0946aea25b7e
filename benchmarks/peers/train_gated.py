"""Wuxing, one step at a time: the trainer that train_wuxing.py builds, behind the gate."""

import sys

import torch
from gate import STEPS, Gate, settings
from train_wuxing import build, options

from wuxing.compute.device import pick_device
from wuxing.model.architecture import count_parameters


def main():
    asked = settings()
    words = ["--size", asked["size"], "--vocab", asked["model"]["vocab_size"], "--length", asked["length"]]
    words += ["--batch-tokens", asked["rows"] * asked["length"], "--optimizer", asked.get("optimizer", "adamw")]
    words += ["--compile"] * asked["compile"]
    sys.argv[1:] = map(str, words)
    shape, trainer = build(options(), pick_device())
    assert all(shape[name] == value for name, value in asked["model"].items() if name in shape)
    gate = Gate({"parameters": count_parameters(shape), "threads": torch.get_num_threads()})
    while True:
        if trainer.done % STEPS == 0:
            trainer.source.position = 0
        gate()
        trainer.step()


main()
