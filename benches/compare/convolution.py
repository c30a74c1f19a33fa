#!/usr/bin/env python3
"""The 3×3 convolution of `host-kernels` and LibTorch's, in turns on one core: a Markdown table of billions of operations a second.

    python benches/compare/convolution.py [--rounds 5]     (torch 2.9)

Each round runs both once, in an order that changes; of each run counts the fastest of some tens of calls, of the rounds the
median. Both compute the same sums of random numbers; that they are right is held by the tests of `host-kernels`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["32,64,16,16,64", "32,96,8,8,96", "32,112,4,4,112", "16,24,64,64,24", "1,320,64,64,320"]
SECONDS = 0.4


def torch_side():
    import torch
    from torch.nn.functional import conv2d

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for sizes in SIZES:
        batch, inputs, height, width, outputs = map(int, sizes.split(","))
        image, weight, bias = torch.rand(batch, inputs, height, width) - 0.5, torch.rand(outputs, inputs, 3, 3) - 0.5, torch.rand(outputs)
        best, started = float("inf"), time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            before = time.perf_counter()
            conv2d(image, weight, bias, padding=1)
            best = min(best, time.perf_counter() - before)
        print(sizes, f"{2 * weight.numel() * batch * height * width / best / 1e9:.2f}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    options = options.parse_args()
    if options.torch:
        return torch_side()
    built = subprocess.run(
        ["cargo", "bench", "--no-run", "--package", "host-kernels", "--bench", "convolution", "--message-format", "json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    ours = next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "convolution")
    commands = {"here": [ours, *SIZES], "LibTorch": [sys.executable, __file__, "--torch"]}
    found = {name: {sizes: [] for sizes in SIZES} for name in commands}
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for number in range(options.rounds):
        for name in sorted(commands, reverse=bool(number % 2)):
            said = subprocess.run(commands[name], check=True, capture_output=True, text=True, env=environment).stdout
            for line in said.splitlines():
                sizes, speed = line.split()
                found[name][sizes].append(float(speed))
    print("| `[batch, in, height, width] → out` | here | LibTorch |\n|---|---|---|")
    for sizes in SIZES:
        *shape, outputs = sizes.split(",")
        speeds = [f"{statistics.median(found[name][sizes]):.0f}" for name in commands]
        print(f"| `[{', '.join(shape)}] → {outputs}` | {' | '.join(speeds)} |")


if __name__ == "__main__":
    main()
