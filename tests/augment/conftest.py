"""Augmentation is tried on the same small corpora as features."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "feature"))
