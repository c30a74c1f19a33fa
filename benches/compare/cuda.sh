#!/usr/bin/env bash
# All that an NVIDIA card can show, by one command; needs a CUDA toolkit's headers (CUDA_PATH) and, for the comparison,
# Python with torch, diffusers, transformers, peft and safetensors. Writes Markdown to standard output.
#
#     benches/compare/cuda.sh > cuda.md            PEAK=989 for an H100, 312 for an A100 (TFLOP/s in bf16)
set -euo pipefail
cd "$(dirname "$0")/../.."
peak=${PEAK:-312}
python=${PYTHON:-python}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >&2

# 1. Every test that compares with a reference, on the card. Products are rounded to TF32 there: 10 bits of mantissa.
echo "## Goldens on the card"
RAGAR_TEST_DEVICE=cuda:0 RAGAR_TEST_TOLERANCE=${TOLERANCE:-30} \
    cargo test --release --no-default-features --features cuda,flex --test it -- \
    clip diffusion llama blip2 lpips mapper micro scheduler 2>&1 | grep -E "^test |^test result" | sed 's/^/    /'

# 2. Networks of the paper's size on random weights, beside PyTorch and candle on the same card in the same run.
echo "## Networks"
for dtype in bfloat16 float16; do
    "$python" benches/compare/networks.py --size paper --device cuda:0 --features cuda --dtype "$dtype" --peak "$peak"
done

# 3. Training steps of the whole method on the shipped family: reflection, ranking, language model.
echo "## Training on the shipped family"
out=$(mktemp -d)
for device in cuda:0 flex; do
    cargo run --release --no-default-features --features cuda,flex -- \
        demo --quick --device "$device" --out "$out/$device" 2>&1 | grep -E "^[A-Z][A-Za-z ]+: [0-9.]+ s" | sed "s/^/    $device /"
done
nvidia-smi --query-gpu=memory.used --format=csv,noheader >&2
