"""Run every benchmark of this folder, one after the other, and name the machine.

python benchmarks/run.py [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wuxing.compute.doctor import examine

HERE = Path(__file__).parent


def main() -> int:
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")
    for finding in examine(HERE):
        if finding.name in ("processor", "cores", "memory", "torch", "matrix product fp32", "matrix product bf16"):
            print(f"{finding.name}: {finding.value}")
    failed = 0
    for name in names:
        print(f"\n## {name}", flush=True)
        failed += subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
