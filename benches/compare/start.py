#!/usr/bin/env python3
"""From the start of a process to its first picture on disk, here and in diffusers, on the shipped pipeline.

    python benches/compare/start.py                        (torch 2.9, diffusers, transformers, safetensors, pillow)
    python benches/compare/start.py --run runs/demo/train  (and `ragar generate`, which captions, retrieves and reads before it draws)

Each run is a new process: load the tokeniser, text encoder, UNet and autoencoder of assets/models/tiny/diffusion, encode a prompt,
20 steps of DDIM with guidance from one given latent, decode, write a PNG. The first round warms the disk's cache, and there the
pictures must be the same within a grey level or two; then they take turns in an order that changes. Printed is a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "assets/models/tiny/diffusion"
PROMPT = "a smooth flat sticker of a hamburger, food"


def draw(latents, picture):
    """diffusers' side."""
    import torch
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    pipeline = StableDiffusionPipeline.from_pretrained(PIPELINE, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    latents = load_file(latents)["latents"]
    with torch.no_grad():
        image = pipeline(PROMPT, num_inference_steps=20, guidance_scale=7.5, latents=latents).images[0]
    image.save(picture)


def build():
    """What Cargo built, by the target's name."""
    found = {}
    for command in (["bench", "--no-run", "--bench", "compare"], ["build", "--release"]):
        output = subprocess.run(["cargo", *command, "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        lines = (line for line in map(json.loads, output.splitlines()) if line.get("executable"))
        found |= {line["target"]["name"]: line["executable"] for line in lines}
    return found["compare"], found["ragar"]


def seconds_of(command, environment):
    started = time.perf_counter()
    subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="flex")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--run", type=Path, help="a finished training, for `ragar generate`")
    parser.add_argument("--built", nargs=2, type=Path, metavar=("COMPARE", "RAGAR"), help="run these in place of building")
    parser.add_argument("--draw", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        return draw(*arguments.draw)

    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    compare, ragar = arguments.built or build()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        latents = folder / "latents.safetensors"
        save_file({"latents": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))}, latents)
        field = {
            "here": [compare, "start", PIPELINE, latents, PROMPT, folder / "here.png", arguments.device],
            "diffusers": [sys.executable, __file__, "--draw", latents, folder / "diffusers.png"],
        }
        if arguments.run:
            field["`ragar generate`"] = [ragar, "generate", "--quiet", "--device", arguments.device, "--run", arguments.run.resolve(),
                                         "--out", folder / "generate.png", "--set", "inference.num_steps=20"]
        load = os.getloadavg()[0]
        for command in field.values():
            seconds_of(command, environment)
        pictures = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB"), dtype=int) for name in ("here", "diffusers")]
        worst = int(abs(pictures[0] - pictures[1]).max())
        if worst > 2 or pictures[0].std() < 5:
            raise SystemExit(f"no time taken: the pictures differ by up to {worst} of 255, or show nothing")
        seconds = {name: [] for name in field}
        names = list(field)
        for turn in range(arguments.rounds):
            for place in range(len(names)):
                name = names[(place + turn) % len(names)]
                seconds[name].append(seconds_of(field[name], environment))

    print(f"\n{arguments.device}, {arguments.rounds} rounds, load of the machine before: {load:.1f}; largest difference of a pixel: {worst} of 255\n")
    print("| from the start to the picture | seconds (half of the rounds) | ratio to diffusers (half of the rounds) |\n|---|---|---|")
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds["diffusers"])]
        low, _, high = statistics.quantiles(seconds[name], n=4, method="inclusive")
        less, _, more = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"| {name} | {statistics.median(seconds[name]):.2f} ({low:.2f} … {high:.2f}) | {statistics.median(ratios):.3f} ({less:.3f} … {more:.3f}) |")


if __name__ == "__main__":
    sys.exit(main())
