#!/bin/bash
# The GPU paths, checked and measured in under ten minutes: benchmarks/gpu.sh [> table.txt]
#
# Tests that need a GPU; tokens per second and share of the card's bf16 products at 10m, 100m and 1b, in bf16 and float8,
# eager and compiled, with FlexAttention and with a dense mask, kept and recomputed; nanochat and torchtitan beside them
# where benchmarks/train.py has installed them.  Ends at once where there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-.venv/bin/python}
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "no GPU here: PyTorch sees none ($("$python" -c 'import torch; print("torch", torch.__version__)')); nothing was measured"
    exit 3
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
"$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)'
failed=0
timeout 120 "$python" -m pytest -q tests/model/on_gpu.py || failed=1
timeout 120 "$python" -m pytest -q tests/model/test_native.py tests/model/test_network.py -k "compiled or packed" || failed=1

step() { # LABEL ARGUMENTS...: one line of JSON, or why there is none
    local label=$1
    shift
    printf '%-34s' "$label"
    timeout 90 "$python" benchmarks/peers/train_wuxing.py --device cuda --optimizer muon --document 400 --steps 12 \
        --seconds 20 "$@" 2>/tmp/wuxing-gpu-error | "$python" -c '
import json, sys
lines = [line for line in sys.stdin if line.startswith("{")]
if not lines:
    print("failed:", (open("/tmp/wuxing-gpu-error").read().strip().splitlines() or ["no output"])[-1][:160])
    sys.exit(1)
r = json.loads(lines[-1])
print("{tokens_per_second:>12,.0f} tokens/s  {gemm_share:>6.1%} of products  {peak:>6.1f} GB".format(peak=r["peak_bytes"] / 1e9, **r))
' || failed=1
}

small="--size 10m --vocab 8192 --length 1024 --batch-tokens 262144 --piece-tokens 131072"
middle="--size 100m --vocab 32768 --length 1024 --batch-tokens 131072 --piece-tokens 65536"
large="--size 1b --vocab 32768 --length 2048 --batch-tokens 32768 --piece-tokens 16384"
step "10m bf16 eager" $small
step "10m bf16 compiled" $small --compile
step "100m bf16 eager" $middle
step "100m bf16 compiled" $middle --compile
step "100m bf16 compiled, dense mask" $middle --compile --dense-mask
step "100m bf16 compiled, recomputed" $middle --compile --recompute
step "100m float8 compiled" $middle --compile --precision float8
step "1b bf16 compiled" $large --compile
step "1b float8 compiled" $large --compile --precision float8
if [ -d "${WUXING_BENCH:-$HOME/.cache/wuxing-bench}" ]; then
    timeout 150 "$python" benchmarks/train.py --models 100m --peers nanochat || failed=1
else
    echo "no peers are installed: python benchmarks/train.py installs them"
fi
exit $failed
