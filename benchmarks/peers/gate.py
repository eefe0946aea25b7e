"""What every training peer of benchmarks/train.py shares: the stream of tokens, and steps taken only when asked.

The benchmark writes a number of steps to a peer's standard input; the peer takes them and answers with one line, `@@`
and JSON.  So several trainers stand ready at once and take turns, and start and compilation are in no figure.
"""

import json
import os
import resource
import sys
import time

import numpy as np

STEPS = 48
"""Of the stream; after them it begins anew."""


def settings():
    """What the benchmark asks for: the model's config.json, batch and options."""
    return json.loads(sys.argv[1])


def draw(step, rows, length, vocabulary):
    """The tokens of one step, (rows, length + 1), as train_wuxing.py draws them."""
    generator = np.random.default_rng(step % STEPS * rows)
    return generator.integers(0, vocabulary, (rows, length + 1))


class Gate:
    """Call it where one step ends and the next begins."""

    def __init__(self, facts):
        self.facts, self.left, self.times, self.last = facts, 0, [], 0.0

    def __call__(self):
        now = time.perf_counter()
        if self.last:
            self.times.append(now - self.last)
            self.left -= 1
        if self.left <= 0:
            self._wait()
        self.last = time.perf_counter()

    def _wait(self):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print("@@ " + json.dumps({"times": self.times, "peak_bytes": peak, **self.facts}), flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            sys.stdout.flush()
            os._exit(0)
        self.left, self.times = int(line), []
