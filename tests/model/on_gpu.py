"""What only a GPU can show; `benchmarks/gpu.sh` runs it there.  No part of the suite, where it could not fail."""

from __future__ import annotations

import torch
from test_native import BF16, documents, near, small


def test_flex_equals_the_dense_mask_and_float8_stays_near() -> None:
    network = small().cuda()
    tokens, numbers = torch.randint(0, 311, (2, 256)).cuda(), documents(2, 256).cuda()
    with torch.autocast("cuda", BF16), torch.no_grad():
        flexed = network.hidden(tokens, None, numbers)
        network.flex = False
        dense = network.hidden(tokens, None, numbers)
        assert near(flexed, dense.float(), 0.02)
        if torch.cuda.get_device_capability() >= (8, 9):
            network.use_float8()
            assert near(network.hidden(tokens, None, numbers), dense.float(), 0.1)
