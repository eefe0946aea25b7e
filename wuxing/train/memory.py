"""What a run needs in memory, and what it really held."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from wuxing.core.error import RefusedError

if TYPE_CHECKING:
    from wuxing.train.assemble import Parts
    from wuxing.train.config import ModelConfig


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _begin_peak() -> bool:
    """Let the kernel count this process's peak from now on; False where it does not (other than Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@dataclass
class Watch:
    """Memory beyond what the process held when the watch began, in bytes: on the GPU where there is one."""

    before: int = field(default_factory=_resident)
    _kernel: bool = field(default_factory=_begin_peak)
    _seen: int = 0

    def now(self) -> int:
        """What the process holds now, all of it."""
        held = torch.cuda.memory_allocated() if torch.cuda.is_available() else _resident()
        self._seen = max(self._seen, held)
        return held

    def peak(self) -> int:
        """The most that was held beyond the beginning."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
        most = self._seen
        if self._kernel:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    most = int(line.split()[1]) * 1024
        return max(0, most - self.before)


def refuse_without_memory(config: ModelConfig, parts: Parts, device: torch.device) -> int:
    """The planned peak in bytes.  Raises RefusedError when the device has less than that to give."""
    weights = sum(parameter.numel() for parameter in parts.network.parameters()) * 4
    shape = parts.network.config
    positions = min(parts.step_positions, parts.piece_rows * parts.length)
    inner = 10 * shape["hidden_size"] + 6 * shape["intermediate_size"]
    activations = positions * shape["num_hidden_layers"] * inner * 4
    planned = 6 * weights + activations
    free = psutil.virtual_memory().available if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    if planned > free:
        raise RefusedError(
            f"training needs about {planned / 2**30:.1f} GiB and {device} has {free / 2**30:.1f} GiB free",
            "Choose a smaller architecture.size, or lower piece_tokens",
        )
    return planned
