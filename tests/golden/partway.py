#!/usr/bin/env python3
"""Samplers that begin with a picture under noise instead of noise alone, as diffusers' image-to-image pipelines use them.

    python tests/golden/partway.py      # writes tests/golden/scheduler-partway/golden.safetensors

Reads the scheduler and the network's outputs of the recorded cases beside it. Needs diffusers, torch, safetensors.
"""

from pathlib import Path

import diffusers
import torch
from safetensors.torch import load_file, safe_open, save_file

HERE = Path(__file__).parent
CASES = ["ddim", "dpm-solver", "dpm-solver-karras", "euler", "euler-karras", "unipc", "unipc-karras"]
STRENGTH = 0.6

tensors = {}
for case in CASES:
    folder = HERE / f"scheduler-{case}"
    recorded = load_file(folder / "golden.safetensors")
    with safe_open(folder / "golden.safetensors", "pt") as file:
        metadata = file.metadata()
    steps = int(metadata["num_inference_steps"])
    place = folder / "model" / "scheduler"
    scheduler = getattr(diffusers, metadata["scheduler"]).from_pretrained(place if place.exists() else folder / "model")
    scheduler.set_timesteps(steps)
    first = steps - int(steps * STRENGTH)
    timesteps = scheduler.timesteps[first:]
    scheduler.set_begin_index(first) if hasattr(scheduler, "set_begin_index") else None
    noise, outputs = recorded["input.sample"], recorded["input.model_outputs"]
    pictures = torch.randn(noise.shape, generator=torch.Generator().manual_seed(7))
    sample = scheduler.add_noise(pictures, noise, timesteps[:1].repeat(len(noise)))
    samples = [sample]
    for call, timestep in enumerate(timesteps, first):
        scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(outputs[call], timestep, sample).prev_sample
        samples.append(sample)
    tensors[f"{case}.pictures"] = pictures
    tensors[f"{case}.samples"] = torch.stack(samples)
    print(case, steps, first, tuple(tensors[f"{case}.samples"].shape))
out = HERE / "scheduler-partway"
out.mkdir(exist_ok=True)
save_file(tensors, out / "golden.safetensors", metadata={"strength": str(STRENGTH)})
